"""Refuses bodies over a limit, with or without Content-Length. (FastAPI's own limit answers in plain text.)"""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sevenfold.api.http.problem_handlers import render
from sevenfold.api.http.problems import ProblemError, ProblemType


class BodyLimitMiddleware:
    """Pure ASGI middleware. `limit` is in bytes."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        content_length = Headers(scope=scope).get("content-length", "")
        if content_length.isdigit() and int(content_length.lstrip("0")[:20] or "0") > self._limit:
            await render(ProblemError(ProblemType.TOO_LARGE, self._detail()))(scope, receive, send)
            return
        read = 0

        async def receive_counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._limit:
                raise HTTPException(413, self._detail())
            return message

        await self._app(scope, receive_counted, send)

    def _detail(self) -> str:
        return f"The body is larger than {self._limit // 1_000_000} MB. Pass large documents by URL or in parts."
