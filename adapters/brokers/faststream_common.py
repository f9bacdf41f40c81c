"""What the brokers over FastStream share."""

from typing import Any

from faststream import AckPolicy, StreamMessage

# Time for handlers when a connection closes, in seconds; unacknowledged messages are delivered again.
GRACE_SECONDS = 2.0

# How long a broker may take to answer a ping, in seconds.
PING_SECONDS = 2.0


async def decode_raw(message: StreamMessage[Any]) -> bytes:
    """Leaves the body unparsed, because we parse it ourselves."""
    return message.body


# Options of every consuming broker.
CONSUMING: dict[str, Any] = {
    "decoder": decode_raw,
    "ack_policy": AckPolicy.MANUAL,
    "graceful_timeout": GRACE_SECONDS,
    "logger": None,
}
