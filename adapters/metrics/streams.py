"""Metrics of streams and of the store of large payloads."""

from prometheus_client import Counter, Gauge, Histogram

from sevenfold.adapters.metrics.labels import DURATION_BUCKETS

OPEN_STREAMS = Gauge("sevenfold_stream_publishers", "Attempts whose stream is published by this process.")
READERS = Gauge("sevenfold_stream_readers", "Readers of streams at this process.")
RESUMES = Counter("sevenfold_stream_resumes", "Readers that resumed a stream after an index.")
RESETS = Counter("sevenfold_stream_resets", "Resets, after an attempt that had sent text.")
BYTES = Counter("sevenfold_stream_sent_bytes", "Bytes that readers were sent.")
LOG_WRITES = Histogram(
    "sevenfold_stream_log_write_seconds", "Time to write a batch to a stream's log.", buckets=DURATION_BUCKETS
)
_PAYLOAD_BYTES = Counter(
    "sevenfold_payload_store_bytes", "Bytes of large payloads that were stored or read.", ["store", "operation"]
)
_PAYLOAD_ERRORS = Counter(
    "sevenfold_payload_store_errors", "Operations of the payload store that failed.", ["store", "operation"]
)


def count_payloads(store: str, operation: str, size: int) -> None:
    """Counts the bytes of payloads that were stored or read."""
    _PAYLOAD_BYTES.labels(store, operation).inc(size)


def count_payload_error(store: str, operation: str) -> None:
    """Counts an operation that failed."""
    _PAYLOAD_ERRORS.labels(store, operation).inc()
