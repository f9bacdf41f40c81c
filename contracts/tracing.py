"""Trace contexts (W3C), and the spans of what Sevenfold does.

A span's id may be known before the span: that of a run is derived from its ids, so that every process can name it as
a parent, and whoever records it twice records the same one.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from enum import StrEnum

# What follows the flags is for versions above 00.
_W3C = re.compile(
    r"(?:00|(?!ff|00)(?P<later>[0-9a-f]{2}))-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})(?P<span>[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?(later)(?:-.*)?)"
)
_SAMPLED = 1

# The memo of a run with the id of its trace.
TRACE_MEMO = "trace"


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span's place: 32 and 16 hexadecimal digits, and whether the trace is recorded."""

    trace_id: str
    span_id: str
    is_sampled: bool = True

    @classmethod
    def parse(cls, traceparent: str) -> "TraceContext | None":
        """Returns the context of a `traceparent`; None if it is empty or invalid."""
        found = _W3C.fullmatch(traceparent)
        return None if found is None else cls(found["trace"], found["span"], bool(int(found["flags"], 16) & _SAMPLED))

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{int(self.is_sampled):02x}"

    def child(self, span_id: str | None = None) -> "TraceContext":
        """Returns the context of a span in the same trace, with a new id if none is given."""
        return TraceContext(self.trace_id, span_id or new_span_id(), self.is_sampled)


def new_span_id() -> str:
    """Returns a random span id."""
    return secrets.token_hex(8)


def run_context(traceparent: str, workflow_id: str, run_id: str) -> TraceContext:
    """Returns the context of a run's span. A run without a trace gets one of its own. It is deterministic."""
    digest = hashlib.sha256(f"{workflow_id}/{run_id}".encode()).hexdigest()
    parent = TraceContext.parse(traceparent)
    return TraceContext(digest[16:48], digest[:16]) if parent is None else parent.child(digest[:16])


def child_context(run: TraceContext, workflow_id: str) -> TraceContext:
    """Returns the context of a child workflow's span. It is deterministic."""
    return run.child(hashlib.sha256(f"{run.span_id}/{workflow_id}".encode()).hexdigest()[:16])


def trace_memo(traceparent: str) -> dict[str, str]:
    """Returns the part of a run's memo that names its trace; empty without one."""
    trace = TraceContext.parse(traceparent)
    return {} if trace is None else {TRACE_MEMO: trace.trace_id}


class SpanKind(StrEnum):
    """Whom the work is for, in OpenTelemetry's terms."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Span:
    """Work that has ended. Times are seconds since 1970; `error` is the type of a failure."""

    name: str
    kind: SpanKind
    context: TraceContext
    parent: TraceContext | None
    started_at: float
    ended_at: float
    attributes: dict[str, str | int | float | bool] = field(default_factory=dict)
    error: str | None = None
