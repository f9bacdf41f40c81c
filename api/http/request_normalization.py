"""Normalizes requests before routing: joins repeated headers, serves HEAD as GET, refuses compressed bodies."""

import re
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sevenfold.api.http.problem_handlers import render
from sevenfold.api.http.problems import ProblemError, ProblemType, not_found

# A HEAD disconnects at once and must not change anything, so `onDisconnect=cancel` must not apply to it.
_ON_DISCONNECT = re.compile(rb"(?:^|(?<=&))onDisconnect=[^&]*&?", re.IGNORECASE)


class RequestNormalizationMiddleware:
    """Pure ASGI middleware, so that streams pass through unbuffered."""

    def __init__(self, app: ASGIApp, socket_paths: Collection[str]) -> None:
        self._app = app
        self._socket_paths = socket_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        scope["headers"] = _join_repeated(scope["headers"])
        if scope["type"] == "websocket":
            if scope["path"] in self._socket_paths:
                await self._app(scope, receive, send)
            else:  # The framework would answer with 403 and no body.
                await render(not_found("A WebSocket at this address"))(scope, receive, send)
            return
        encoding = Headers(scope=scope).get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            problem = ProblemError(
                ProblemType.UNSUPPORTED_MEDIA_TYPE,
                "Content-Encoding is not supported. Send the body without it.",
                headers={"Accept-Encoding": "identity"},
            )
            await render(problem)(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            await self._answer_head(scope, receive, send)
            return
        await _run_to_completion(self._app, scope, receive, send)

    async def _answer_head(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as GET does, without a body. An endless response ends after its headers."""
        query = _ON_DISCONNECT.sub(b"", scope["query_string"])
        is_over = False

        async def send_head(message: Message) -> None:
            nonlocal is_over
            if message["type"] == "http.response.start":
                await send(message)
            elif not is_over:
                is_over = True
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        async def receive_until_over() -> Message:
            return {"type": "http.disconnect"} if is_over else await receive()

        read = {**scope, "method": "GET", "query_string": query}
        await _run_to_completion(self._app, read, receive_until_over, send_head)
        scope["route"] = read.get("route")


async def _run_to_completion(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Runs the app. Starlette re-raises an exception that it has answered with 500; the server would then close a
    connection that the client keeps alive, so such an exception is dropped here.
    """
    answered = False

    async def send_observed(message: Message) -> None:
        nonlocal answered
        await send(message)
        answered = message["type"] == "http.response.body" and not message.get("more_body", False)

    try:
        await app(scope, receive, send_observed)
    except Exception:  # the handler that answered has logged it
        if not answered:
            raise


def _join_repeated(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Joins repeated headers into one list (RFC 9110, 5.3), in the place of the first."""
    names = [name for name, _ in headers]
    if len(set(names)) == len(names):
        return headers
    lines: dict[bytes, bytes] = {}
    for name, value in headers:
        separator = b"; " if name == b"cookie" else b", "
        lines[name] = lines[name] + separator + value if name in lines else value
    return list(lines.items())
