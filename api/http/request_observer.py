"""Counts each request and writes its line to the log, at its end."""

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sevenfold.adapters.metrics.process import observe_request
from sevenfold.adapters.tracing import record, tracer
from sevenfold.api.http.request_id import request_trace
from sevenfold.contracts.tracing import Span, SpanKind

log = structlog.get_logger(__name__)

# Requests for an address that has no route. Addresses themselves are what clients send, so they are no labels.
_NO_ROUTE = "none"

# Asked every few seconds by machines: their lines would bury the others.
_QUIET = frozenset({"/health/live", "/health/ready", "/metrics"})

# As proxies write a request whose client did not wait for the answer.
_CLIENT_GONE = 499


class RequestObserver:
    """ASGI middleware. The line has what others have bound meanwhile: request id, tenant, run id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        started_at, status = time.perf_counter(), 0

        async def send_observed(message: Message) -> None:
            nonlocal status
            match message["type"]:
                case "http.response.start" | "websocket.http.response.start":
                    status = message["status"]
                case "websocket.accept":
                    status = 101
                case "websocket.close" if not status:
                    status = 403
            await send(message)

        try:
            await self._app(scope, receive, send_observed)
        except Exception:
            status = status or 500
            raise
        finally:
            _observe(scope, status or _CLIENT_GONE, time.perf_counter() - started_at)


def _observe(scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", _NO_ROUTE)
    method = "WEBSOCKET" if scope["type"] == "websocket" else scope["method"]
    observe_request(method, route, status, seconds)
    trace = request_trace()
    if route not in _QUIET and trace is not None and tracer() is not None:
        record(
            Span(
                name=f"{method} {route}",
                kind=SpanKind.SERVER,
                context=trace.context,
                parent=trace.parent,
                started_at=time.time() - seconds,
                ended_at=time.time(),
                attributes={
                    "http.request.method": method,
                    "http.route": route,
                    "http.response.status_code": status,
                },
                error=str(status) if status >= 500 else None,
            )
        )
    write = log.debug if route in _QUIET else log.info
    write("request", method=method[:10], route=route, status=status, seconds=round(seconds, 4))
