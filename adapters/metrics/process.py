"""Metrics of HTTP requests and of the process itself."""

from prometheus_client import Counter, Gauge, Histogram

from sevenfold.adapters.metrics.labels import DURATION_BUCKETS

_REQUESTS = Histogram(
    "sevenfold_http_request_duration_seconds",
    "HTTP requests until their answer has ended; `route` is the address as the OpenAPI document has it.",
    ["method", "route", "status"],
    buckets=DURATION_BUCKETS,
)
LOOP_LAG = Gauge("sevenfold_event_loop_lag_seconds", "The longest delay of the event loop within the last 15 s.")
SERVER_RESTARTS = Counter("sevenfold_embedded_server_restarts", "Restarts of the embedded Temporal server.")

_DEPENDENCIES = Gauge(
    "sevenfold_dependency_up",
    "Whether a dependency answers, as /health/ready shows it.",
    ["dependency"],
)

_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "WEBSOCKET"})


def set_dependency(name: str, *, is_up: bool) -> None:
    """Shows whether a dependency answers."""
    _DEPENDENCIES.labels(name).set(is_up)


def observe_request(method: str, route: str, status: int, seconds: float) -> None:
    """Counts a request that has its answer."""
    _REQUESTS.labels(method if method in _METHODS else "other", route, status).observe(seconds)
