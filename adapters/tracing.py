"""Where spans go: nowhere, unless the process was started with the standard `OTEL_*` variables."""

import secrets
from typing import Protocol

from sevenfold.contracts.tracing import Span, TraceContext, new_span_id


class Tracer(Protocol):
    """Records spans (implemented by `sevenfold.adapters.otel`). Nothing here waits or raises."""

    captures_content: bool

    def is_sampled(self, trace_id: str) -> bool:
        """Whether a trace that begins here is recorded."""
        ...

    def record(self, span: Span) -> None:
        """Takes a span that has ended."""
        ...

    def enter(self, context: TraceContext) -> None:
        """Makes this the current span of the calling task, for instrumentation of agents' own code."""
        ...


_tracer: Tracer | None = None


def use_tracer(tracer: Tracer | None) -> None:
    """Sets the tracer of this process; None: no traces."""
    global _tracer
    _tracer = tracer


def tracer() -> Tracer | None:
    """Returns the tracer of this process; None without traces."""
    return _tracer


def new_trace() -> TraceContext:
    """Returns the context of a new trace's first span; the process's sampler decides whether it is recorded."""
    trace_id = secrets.token_hex(16)
    return TraceContext(trace_id, new_span_id(), _tracer is None or _tracer.is_sampled(trace_id))


def record(span: Span) -> None:
    """Records a span, if the process records any."""
    if _tracer is not None:
        _tracer.record(span)
