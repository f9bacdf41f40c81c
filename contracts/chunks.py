"""The objects that pass between a job's workflow and the activity that works on a chunk of its items."""

from datetime import datetime

from pydantic import JsonValue

from contracts.agent import AgentRequest, Origin
from contracts.jobs import Counts, ItemResult
from contracts.payload import Payload

CHUNK_ID = "chunk-"


def chunk_id(offset: int) -> str:
    """The activity id of the chunk that begins at this index: by it results are found in the history."""
    return f"{CHUNK_ID}{offset}"


class ChunkCall(Payload):
    """Items of a job, the first of which has the index `offset`.

    `concurrency` is this chunk's share. When more than `failures_allowed` items have failed here, no more are begun.
    """

    agent: str
    request: AgentRequest
    key: str
    offset: int
    items: list[JsonValue]
    concurrency: int
    failures_allowed: int | None
    deadline: datetime
    origin: Origin = Origin()


class ChunkEnd(Payload):
    """How a chunk ended, as far as the workflow needs to know. `stopped`: by a cancellation, with what was done."""

    counts: Counts
    stopped: bool = False


class ChunkOutcome(ChunkEnd):
    """The same with the results, in index order."""

    results: list[ItemResult]
