"""Exports spans by OTLP. Imported only if an endpoint is configured, because it is an extra.

Names of the semantic conventions for generative AI (version 0.1.0, in development) are in
`sevenfold.activities.runs.call_span` alone.
"""

import os
import threading
from collections.abc import Callable

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags

from sevenfold.contracts.tracing import Span, SpanKind, TraceContext

_KINDS = {
    SpanKind.INTERNAL: trace.SpanKind.INTERNAL,
    SpanKind.SERVER: trace.SpanKind.SERVER,
    SpanKind.CLIENT: trace.SpanKind.CLIENT,
}
_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
# A collector that does not answer must not hold up the end of a process.
_CLOSE_SECONDS = 3.0


class OtelTracer:
    """Exports in batches, by a thread of OpenTelemetry's SDK. What its queue has no room for is dropped."""

    def __init__(self, version: str) -> None:
        resource = Resource.create({} if _has_service_name() else {SERVICE_NAME: "sevenfold"})
        self._provider = TracerProvider(resource=resource)
        self._processor = BatchSpanProcessor(_build_exporter())
        self._provider.add_span_processor(self._processor)
        self._resource = resource
        self._scope = InstrumentationScope("sevenfold", version)
        self.captures_content = os.environ.get(_CONTENT, "").lower() in ("true", "span_only", "span_and_event")
        trace.set_tracer_provider(self._provider)  # For spans of agents' own code.

    def is_sampled(self, trace_id: str) -> bool:
        """Asks the sampler of OTEL_TRACES_SAMPLER."""
        decision = self._provider.sampler.should_sample(None, int(trace_id, 16), "request").decision
        return decision is Decision.RECORD_AND_SAMPLE

    def record(self, span: Span) -> None:
        """Queues the span, if its trace is recorded."""
        if not span.context.is_sampled:
            return
        self._processor.on_end(
            ReadableSpan(
                name=span.name,
                context=_to_otel(span.context, is_remote=False),
                parent=None if span.parent is None else _to_otel(span.parent, is_remote=True),
                resource=self._resource,
                attributes=dict(span.attributes) | ({"error.type": span.error} if span.error else {}),
                kind=_KINDS[span.kind],
                status=Status(StatusCode.ERROR) if span.error else Status(StatusCode.UNSET),
                start_time=int(span.started_at * 1e9),
                end_time=int(max(span.started_at, span.ended_at) * 1e9),
                instrumentation_scope=self._scope,
            )
        )

    def enter(self, context: TraceContext) -> None:
        """Attaches the span to the current task, whose context ends with it."""
        otel_context.attach(trace.set_span_in_context(NonRecordingSpan(_to_otel(context, is_remote=False))))

    def close(self) -> None:
        """Exports what is queued, for up to 3 s: the SDK itself would wait for a collector that does not answer."""
        flushing = threading.Thread(target=self._processor.force_flush, daemon=True)
        flushing.start()
        flushing.join(_CLOSE_SECONDS)


def _to_otel(context: TraceContext, *, is_remote: bool) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if context.is_sampled else TraceFlags.DEFAULT)
    return SpanContext(int(context.trace_id, 16), int(context.span_id, 16), is_remote, flags)


def _has_service_name() -> bool:
    return bool(os.environ.get("OTEL_SERVICE_NAME")) or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )


def _build_exporter() -> SpanExporter:
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    exporters: dict[str, Callable[[], SpanExporter]] = {"http/protobuf": _http_exporter, "grpc": _grpc_exporter}
    build = exporters.get(protocol or "http/protobuf")
    if build is None:
        raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol}; it must be http/protobuf or grpc")
    return build()


def _http_exporter() -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    return OTLPSpanExporter()


def _grpc_exporter() -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    return OTLPSpanExporter()
