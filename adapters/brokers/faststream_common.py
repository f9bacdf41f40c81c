"""What all brokers have in common that FastStream connects."""

from typing import Any

from faststream import AckPolicy, StreamMessage

# How long handlers may still take when a connection is closed; what is not acknowledged by then comes again.
GRACE_SECONDS = 2.0


async def decode_raw(message: StreamMessage[Any]) -> bytes:
    """Leaves the body as it came: what it is, is ours to say."""
    return message.body


def headers_as_text(headers: Any) -> dict[str, str]:
    """Headers as text, whatever the client made of them; what is no text does not stop the message from arriving."""
    found = {}
    for name, value in dict(headers or {}).items():
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else "" if value is None else str(value)
        found[str(name)] = text
    return found


# For every broker that consumes.
CONSUMING: dict[str, Any] = {
    "decoder": decode_raw,
    "ack_policy": AckPolicy.MANUAL,
    "graceful_timeout": GRACE_SECONDS,
    "logger": None,
}
