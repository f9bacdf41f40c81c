"""The errors as OpenAPI shows them."""

from typing import Any

from sevenfold.api.http.problems import MEDIA_TYPE, Problem


def _problem_response(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: _problem_response("The body is not JSON."),
    404: _problem_response("There is no such run."),
    409: _problem_response("The run was cancelled, or ended by an operator; an id or a name is taken."),
    410: _problem_response("What was asked for is not kept any more."),
    413: _problem_response("The body holds more than 10 MB."),
    415: _problem_response("The body is not sent as JSON."),
    422: _problem_response("The request does not fit; `errors` names the fields."),
    429: _problem_response("The agent has as many calls as it may; `Retry-After` says when to come again."),
    502: _problem_response("The agent failed; `code` says how."),
    503: _problem_response("Not now; `Retry-After` says when."),
    504: _problem_response("The run's `timeout` is over."),
}

PROBLEM_SCHEMA: dict[str, Any] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
