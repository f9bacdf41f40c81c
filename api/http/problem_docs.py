"""The problems in the OpenAPI document."""

from typing import Any

from sevenfold.api.http.problems import MEDIA_TYPE, Problem


def _problem_response(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: _problem_response("The body is not JSON."),
    404: _problem_response("The resource does not exist, or is older than the retention."),
    409: _problem_response("The run was cancelled or terminated, or an id or a name is taken."),
    410: _problem_response("The stored data no longer exists."),
    413: _problem_response("The body is larger than 10 MB."),
    415: _problem_response("The Content-Type of the body is not supported."),
    422: _problem_response("The request is invalid; `errors` names the fields."),
    429: _problem_response("The agent is at its limit of calls; retry after `Retry-After`."),
    502: _problem_response("The agent failed; `code` has the kind of failure."),
    503: _problem_response("Temporarily unavailable; retry after `Retry-After`."),
    504: _problem_response("The run's deadline passed without an answer."),
}

PROBLEM_SCHEMA: dict[str, Any] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
