"""Metrics of events, brokers and webhooks."""

from collections.abc import Mapping

from prometheus_client import Counter, Gauge, Histogram

from sevenfold.adapters.metrics.labels import DURATION_BUCKETS, LONG_BUCKETS

_MAX_LAG_SECONDS = 30 * 86_400.0

_ACCEPTED = Counter(
    "sevenfold_events",
    "Events that were sent; `via` is http or a broker, `outcome` accepted, duplicate or conflict.",
    ["via", "outcome"],
)
_REJECTED = Counter(
    "sevenfold_events_rejected", "Messages that are no events and became dead letters.", ["via", "kind"]
)
_LAG = Histogram(
    "sevenfold_event_reaction_lag_seconds",
    "From an event's `time`, if it has one, to the start of a reaction.",
    buckets=LONG_BUCKETS,
)
_CONNECTED = Gauge("sevenfold_broker_connected", "Whether the broker is connected.", ["broker"])
_UNACKNOWLEDGED = Gauge(
    "sevenfold_broker_unacknowledged_messages", "Messages that this process holds unacknowledged.", ["broker"]
)
_LAG_MESSAGES = Gauge(
    "sevenfold_broker_lag_messages",
    "Messages that wait at the broker for this process's group.",
    ["broker", "source", "partition"],
)
# What the gauge above shows.
_lag_labels: set[tuple[str, str, str]] = set()

_MESSAGES = Counter("sevenfold_broker_messages", "Messages of brokers.", ["broker", "direction", "outcome"])
_ATTEMPTS = Histogram(
    "sevenfold_webhook_attempt_duration_seconds",
    "Attempts to deliver a webhook; `outcome` is delivered, failed or final.",
    ["outcome"],
    buckets=DURATION_BUCKETS,
)


def count_event(via: str, outcome: str) -> None:
    """Counts an event that was sent."""
    _ACCEPTED.labels(via, outcome).inc()


def count_rejected(via: str, kind: str) -> None:
    """Counts a message that is no event."""
    _REJECTED.labels(via, kind).inc()


def observe_reaction_lag(seconds: float) -> None:
    """Counts a reaction that has started, so long after its event. A time that cannot be right counts as 30 days."""
    _LAG.observe(min(max(0.0, seconds), _MAX_LAG_SECONDS))


def broker_connected(broker: str) -> Gauge:
    """Returns the gauge of a broker's connection: 1 or 0."""
    return _CONNECTED.labels(broker)


def unacknowledged_messages(broker: str) -> Gauge:
    """Returns the gauge of the messages that wait until Temporal has them."""
    return _UNACKNOWLEDGED.labels(broker)


def show_lag(broker: str, lag: Mapping[tuple[str, str], int]) -> None:
    """Sets the broker's lag by source and partition; partitions that another process has now are no longer shown."""
    shown = {labels for labels in _lag_labels if labels[0] == broker}
    current = {(broker, source, partition): count for (source, partition), count in lag.items()}
    for labels in shown - current.keys():
        _LAG_MESSAGES.remove(*labels)
    for labels, count in current.items():
        _LAG_MESSAGES.labels(*labels).set(count)
    _lag_labels.difference_update(shown)
    _lag_labels.update(current)


def count_message(broker: str, *, sent: bool, outcome: str) -> None:
    """Counts a message that was taken from a broker, or sent to one."""
    _MESSAGES.labels(broker, "out" if sent else "in", outcome).inc()


def observe_attempt(outcome: str, seconds: float) -> None:
    """Counts an attempt to deliver a webhook."""
    _ATTEMPTS.labels(outcome).observe(seconds)
