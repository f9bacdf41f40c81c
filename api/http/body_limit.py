"""Refuses bodies over a limit, announced or not. (FastAPI's own limit answers in plain text, not as a problem.)"""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sevenfold.api.http.problem_handlers import render
from sevenfold.api.http.problems import ProblemError, ProblemType


class BodyLimitMiddleware:
    """`limit` is in bytes."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdigit() and int(announced.lstrip("0")[:20] or "0") > self._limit:
            await render(ProblemError(ProblemType.TOO_LARGE, self._detail()))(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._limit:
                raise HTTPException(413, self._detail())
            return message

        await self._app(scope, counted, send)

    def _detail(self) -> str:
        return f"A request may hold {self._limit // 1_000_000} MB. Pass large documents by URL or in parts."
