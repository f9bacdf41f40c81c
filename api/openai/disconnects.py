"""What happens to a run whose client disconnects: it continues, unless the client wants it cancelled."""

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import Header

from sevenfold.api.streams.lines import StreamSubscription
from sevenfold.contracts.agents.model_requests import ON_DISCONNECT_HEADER

# After the deadline the run itself has an answer or a failure.
GRACE_SECONDS = 5.0

OnDisconnect = Annotated[Literal["cancel", "continue"] | None, Header(alias=ON_DISCONNECT_HEADER)]


async def cancel_on_disconnect(
    subscription: StreamSubscription, pieces: AsyncIterator[bytes], *, cancels: bool
) -> AsyncIterator[bytes]:
    """Yields the pieces. If the client disconnects before the end and `cancels` is set, cancels the run."""
    ended = False
    try:
        async for piece in pieces:
            yield piece
        ended = True
    finally:
        if cancels and not ended:
            subscription.cancel_in_background()
