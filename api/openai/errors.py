"""Problems as OpenAI's clients read errors."""

import json
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sevenfold.api.http.authorization import OPENAI_PREFIX
from sevenfold.api.http.problems import MEDIA_TYPE, PROBLEM_PREFIX
from sevenfold.contracts.runs.requests import StartOptions

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {"unauthorized": "invalid_api_key"}

# Fields of the gateway's own requests, as they stand under `sevenfold`.
_OWN_FIELDS = frozenset(str(field.alias or name) for name, field in StartOptions.model_fields.items()) - {"metadata"}

# The client repeats these by itself: 409 and most of 5xx. A run that has failed was repeated here already.
_FINAL = frozenset({409, 502, 504, 508})


class OpenAIErrors:
    """Turns problems of the paths below `/v1` into errors of OpenAI, also those of middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything else on."""
        if scope["type"] != "http" or not is_openai_path(scope.get("path", "")):
            await self._app(scope, receive, send)
            return
        held: list[Message] = []

        async def send_translated(message: Message) -> None:
            if message["type"] == "http.response.start" and _is_problem(message):
                held.append(message)
            elif held:
                held.append(message)
                if not message.get("more_body"):
                    for one in _translate(held):
                        await send(one)
            else:
                await send(message)

        await self._app(scope, receive, send_translated)


def is_openai_path(path: str) -> bool:
    """Whether OpenAI's clients ask for it."""
    return path == OPENAI_PREFIX or path.startswith(f"{OPENAI_PREFIX}/")


def _is_problem(start: Message) -> bool:
    return MutableHeaders(raw=list(start["headers"])).get("content-type", "").startswith(MEDIA_TYPE)


def _translate(held: list[Message]) -> list[Message]:
    start, *rest = held
    content = b"".join(one.get("body", b"") for one in rest)
    if not content:  # the answer to HEAD
        return held
    problem = json.loads(content)
    status = 400 if start["status"] == 422 else start["status"]
    run = {"sevenfold": {"runId": problem["runId"]}} if problem.get("runId") else {}
    body = json.dumps({"error": describe_error(problem), **run}).encode()
    headers = MutableHeaders(raw=list(start["headers"]))
    headers["content-type"] = "application/json"
    headers["content-length"] = str(len(body))
    if (400 <= status < 500 and status not in (408, 429)) or status in _FINAL:
        headers["x-should-retry"] = "false"
    return [
        {**start, "status": status, "headers": headers.raw},
        {"type": "http.response.body", "body": body, "more_body": False},
    ]


def describe_error(problem: dict[str, Any]) -> dict[str, Any]:
    """Returns the member `error`. `code` is the name of the problem type."""
    slug = str(problem["type"]).removeprefix(f"{PROBLEM_PREFIX}/")
    status = int(problem["status"])
    default = "server_error" if status >= 500 else "invalid_request_error"
    pointers = [str(one["pointer"]) for one in problem.get("errors") or []]
    param = _to_param(pointers[0]) if pointers else None
    is_unknown_agent = pointers[:1] == ["/agent"]
    return {
        "message": problem["detail"].replace("/agent:", "/model:") if is_unknown_agent else problem["detail"],
        "type": _TYPES.get(status, default),
        "param": param,
        "code": "model_not_found" if is_unknown_agent else _CODES.get(slug, slug),
    }


def _to_param(pointer: str) -> str | None:
    """Returns the field's name as the client knows it: what is ours, stands under `sevenfold`."""
    if pointer == "/agent":
        return "model"
    path = pointer.removeprefix("query:").removeprefix("header:").strip("/").split("/")
    if path[0] in _OWN_FIELDS:
        path.insert(0, "sevenfold")
    return ".".join(path) or None
