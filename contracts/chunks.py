"""The objects that pass between a job's workflow and the activity that works on a chunk of its items."""

from datetime import datetime

from pydantic import JsonValue

from sevenfold.contracts.agent import AgentRequest, RequestContext
from sevenfold.contracts.jobs import ItemCounts, ItemResult
from sevenfold.contracts.payload import Payload

CHUNK_ID_PREFIX = "chunk-"


def chunk_id(offset: int) -> str:
    """The activity id of the chunk that begins at this index: by it results are found in the history."""
    return f"{CHUNK_ID_PREFIX}{offset}"


class ChunkInput(Payload):
    """Items of a job, the first of which has the index `offset`.

    `concurrency` is this chunk's share. When more than `max_failures` items have failed here, no more are begun.
    """

    agent: str
    request: AgentRequest
    key: str
    offset: int
    items: list[JsonValue]
    concurrency: int
    max_failures: int | None
    deadline: datetime
    request_context: RequestContext = RequestContext()


class ChunkSummary(Payload):
    """How a chunk ended, as far as the workflow needs to know. `was_cancelled`: by a cancellation, with what was
    done.
    """

    counts: ItemCounts
    was_cancelled: bool = False


class ChunkOutcome(ChunkSummary):
    """The same with the results, in index order."""

    results: list[ItemResult]
