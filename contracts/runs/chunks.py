"""The objects that pass between a job's workflow and the activity that processes a chunk of its items."""

from datetime import datetime

from pydantic import JsonValue

from sevenfold.contracts.agents.interface import AgentRequest, RequestContext
from sevenfold.contracts.agents.usage import NO_USAGE, UsageTotals
from sevenfold.contracts.payload import Payload
from sevenfold.contracts.runs.jobs import ItemCounts, ItemResult
from sevenfold.contracts.runs.run import RunLimits

CHUNK_ID_PREFIX = "chunk-"


def chunk_id(offset: int) -> str:
    """Returns the activity id of the chunk that starts at `offset`. The API finds results in the history by it."""
    return f"{CHUNK_ID_PREFIX}{offset}"


class ChunkInput(Payload):
    """Items of a job; the first one has the index `offset`.

    `concurrency` is this chunk's share. After more than `max_failures` failures in this chunk, no further item
    starts. `limits`: what the whole job may use, of which `used_before` was used by the chunks
    that had ended when this one was scheduled; when it is reached, no further item starts.
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
    key_id: str | None = None
    limits: RunLimits | None = None
    used_before: UsageTotals = NO_USAGE


class ChunkSummary(Payload):
    """A chunk's outcome without the results, which is all that the workflow needs. `was_cancelled`: a cancellation
    stopped the chunk, and the results so far are kept. `limit_reached`: it has used what it may.
    """

    counts: ItemCounts
    was_cancelled: bool = False
    limit_reached: bool = False


class ChunkOutcome(ChunkSummary):
    """A chunk's outcome with the results in index order."""

    results: list[ItemResult]
