"""Options of a stream on every transport."""

from typing import Annotated, Literal

from fastapi import Query

MAX_INDEX = 2**53


OnDisconnect = Annotated[
    Literal["continue", "cancel"],
    Query(
        alias="onDisconnect",
        description="Whether the run continues or is cancelled when this reader disconnects before the end.",
    ),
]
