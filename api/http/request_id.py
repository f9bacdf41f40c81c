"""Request ids, in responses and logs: the client's `X-Request-Id` if it is valid, else a new one. Also keeps the
request's W3C trace context.
"""

import re
import secrets
from contextvars import ContextVar

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Request-Id"
TRACE_HEADER = "traceparent"
_W3C = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_traceparent: ContextVar[str] = ContextVar("traceparent", default="")
_VALID_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


def new_request_id() -> str:
    """Returns a new request id."""
    return f"req_{secrets.token_hex(12)}"


def request_id() -> str:
    """Returns the id of the current request."""
    return str(structlog.contextvars.get_contextvars().get("request_id", ""))


def traceparent() -> str:
    """Returns the `traceparent` of the current request (W3C); empty outside of a request."""
    return _traceparent.get()


class RequestIdMiddleware:
    """Pure ASGI middleware, so that streams pass through unbuffered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given, trace = headers.get(HEADER, ""), headers.get(TRACE_HEADER, "")
        identity = given if _VALID_ID.fullmatch(given) else new_request_id()
        known = _W3C.fullmatch(trace)
        trace = trace if known else f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
        _traceparent.set(trace)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = identity
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=identity, trace_id=trace.split("-")[1]):
            await self._app(scope, receive, send_with_id)
