"""The problems in the OpenAPI document."""

from typing import Any

from sevenfold.api.http.problems import MEDIA_TYPE, Problem


def problem_response(description: str) -> dict[str, Any]:
    """Returns the description of a response that is a problem."""
    return {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: problem_response("The body is not JSON."),
    404: problem_response("The resource does not exist, or is older than the retention."),
    409: problem_response("The run was cancelled or terminated, or an id or a name is taken."),
    410: problem_response("The stored data no longer exists."),
    413: problem_response("The body is larger than 10 MB."),
    415: problem_response("The Content-Type of the body is not supported."),
    422: problem_response("The request is invalid; `errors` names the fields."),
    429: problem_response("The agent is at its limit of calls; retry after `Retry-After`."),
    502: problem_response("The agent failed; `code` has the kind of failure."),
    503: problem_response("Temporarily unavailable; retry after `Retry-After`."),
    504: problem_response("The run's deadline passed without an answer."),
}

PROBLEM_SCHEMA: dict[str, Any] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
