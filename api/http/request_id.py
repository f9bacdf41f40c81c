"""Request ids, in responses and logs: the client's `X-Request-Id` if it is valid, else a new one. Also keeps the
request's W3C trace context.
"""

import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass, replace

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sevenfold.adapters.tracing import new_trace, tracer
from sevenfold.contracts.agents.interface import HOPS_HEADER
from sevenfold.contracts.tracing import TraceContext

HEADER = "X-Request-Id"
TRACE_HEADER, RESPONSE_HEADER = "traceparent", "traceresponse"
_VALID_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


def new_request_id() -> str:
    """Returns a new request id."""
    return f"req_{secrets.token_hex(12)}"


def request_id() -> str:
    """Returns the id of the current request."""
    return str(structlog.contextvars.get_contextvars().get("request_id", ""))


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """The context of a request's span, and its client's."""

    context: TraceContext
    parent: TraceContext | None


_hops: ContextVar[int] = ContextVar("hops", default=0)
_trace: ContextVar[RequestTrace | None] = ContextVar("trace", default=None)


def request_trace() -> RequestTrace | None:
    """Returns the trace of the current request; None outside of a request."""
    return _trace.get()


def traceparent() -> str:
    """Returns the `traceparent` of what the current request starts (W3C); empty outside of a request."""
    trace = _trace.get()
    return "" if trace is None else str(trace.context)


def hops() -> int:
    """Returns how many gateways the current request has passed before."""
    return _hops.get()


def _open_span(parent: TraceContext | None) -> TraceContext:
    """Returns the context of the request: a span of its own if this process records spans, else the client's."""
    if parent is None:
        return new_trace()
    return parent if tracer() is None else parent.child()


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
        parent = TraceContext.parse(trace)
        context = _open_span(parent)
        _trace.set(RequestTrace(context, parent))
        passed = headers.get(HOPS_HEADER, "")
        _hops.set(int(passed) if passed.isascii() and passed.isdigit() and len(passed) < 4 else 0)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[HEADER] = identity
                recorded = context.is_sampled and tracer() is not None
                headers[RESPONSE_HEADER] = str(replace(context, is_sampled=recorded))
            await send(message)

        # A connection's requests may share a context: variables of the previous request are unbound.
        structlog.contextvars.clear_contextvars()
        with structlog.contextvars.bound_contextvars(request_id=identity, trace_id=context.trace_id):
            await self._app(scope, receive, send_with_id)
