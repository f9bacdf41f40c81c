"""Credentials in the OpenAPI document: the ways to send them, and the scopes that each operation needs."""

from typing import Any

from sevenfold.api.http.authorization import SNS_PATH, is_open, required_scopes, run_token_scopes
from sevenfold.api.http.problem_docs import problem_response

_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key (`sf_…`), or an access token of the configured OpenID Connect issuer. A gateway "
        "without keys needs none.",
    },
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
    "runToken": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "A run token, for the status, stream and cancellation of one run.",
    },
}
_METHODS = frozenset({"get", "put", "post", "delete", "patch"})


def document_security(document: dict[str, Any]) -> None:
    """Adds to each operation its credentials, its scopes and the responses 401 and 403."""
    document["components"]["securitySchemes"] = _SCHEMES
    for path, operations in document["paths"].items():
        if is_open(path) or path == SNS_PATH:
            continue
        for method, operation in operations.items():
            if method in _METHODS:
                _document_operation(operation, method.upper(), path)


def _document_operation(operation: dict[str, Any], method: str, path: str) -> None:
    scopes = sorted(required_scopes(method, path))
    needs = "Needs the scope " + " or ".join(f"`{scope}`" for scope in scopes) if scopes else "Needs a key"
    operation["description"] = f"{operation.get('description', '')}\n\n{needs}.".strip()
    # Empty: a gateway without keys.
    operation["security"] = [{"bearer": []}, {"apiKey": []}, {}]
    if run_token_scopes(method, path):
        operation["security"].insert(2, {"runToken": []})
    operation["responses"]["401"] = problem_response("The credential is missing or wrong.")
    operation["responses"]["403"] = problem_response("The credential does not permit this.")
