"""What a record of Kafka is as a message."""

from collections.abc import Awaitable, Callable
from typing import Any

from sevenfold.adapters.brokers.message import BrokerMessage, headers_as_text
from sevenfold.contracts.config.brokers import ConsumeConfig

# Of a key that becomes an event's `partitionkey`.
_MAX_KEY_CHARACTERS = 256


def read_record(record: Any, source: ConsumeConfig, ack: Callable[[], Awaitable[None]]) -> BrokerMessage:
    """Returns the message of an aiokafka `ConsumerRecord`. Header values that are no text are read with replacement
    characters.
    """
    headers = headers_as_text(record.headers)
    return BrokerMessage(
        source=source,
        place=f"{record.topic}-{record.partition}-{record.offset}",
        headers=headers,
        content_type=headers.get("content-type") or None,
        body=record.value or b"",
        ack=ack,
        partition_key=_read_key(record.key),
    )


def _read_key(key: bytes | None) -> str | None:
    """Returns the record's key if an event can have it as an attribute: short text."""
    text = (key or b"").decode("utf-8", "replace")
    return text if text.isprintable() and "\ufffd" not in text and len(text) <= _MAX_KEY_CHARACTERS else None
