"""Options that every transport of a stream takes."""

from typing import Annotated, Literal

from fastapi import Query

MAX_INDEX = 2**53


OnDisconnect = Annotated[
    Literal["continue", "cancel"],
    Query(alias="onDisconnect", description="What becomes of the run when this reader goes away before the end."),
]
