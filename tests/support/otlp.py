"""The spans that a receiver of OTLP over HTTP got."""

import gzip
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.receivers import Receiver


@dataclass(frozen=True)
class ReceivedSpan:
    """`parent_id` is empty for the first span of a trace."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    seconds: float
    failed: bool
    attributes: dict[str, Any]


def received_spans(receiver: Receiver, trace_id: str | None = None) -> list[ReceivedSpan]:
    """All spans, or those of a trace, in the order of their arrival."""
    spans = [span for post in receiver.at("/v1/traces") for span in _parse(post.body, post.headers)]
    return [span for span in spans if trace_id in (None, span.trace_id)]


def _parse(body: bytes, headers: dict[str, str]) -> list[ReceivedSpan]:
    raw = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
    return [
        ReceivedSpan(
            name=span.name,
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
            failed=span.status.code == 2,
            attributes={one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes},
        )
        for resource in ExportTraceServiceRequest.FromString(raw).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def check_connected(spans: list[ReceivedSpan], *, roots: int = 1) -> None:
    """Every parent is there, no span came twice, and so many spans have no parent among them."""
    ids = [span.span_id for span in spans]
    assert len(ids) == len(set(ids)), "a span came twice"
    assert len({span.trace_id for span in spans}) == 1
    orphans = [span for span in spans if span.parent_id not in ids]
    assert len(orphans) == roots, [(span.name, span.parent_id) for span in orphans]
