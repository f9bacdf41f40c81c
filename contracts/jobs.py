"""Jobs: pattern 2's work, whole or item by item."""

from typing import Annotated

from pydantic import ConfigDict, Field, JsonValue

from sevenfold.contracts.agent import Reply
from sevenfold.contracts.payload import JsonObject, Payload
from sevenfold.contracts.requests import StartOptions, TaskName
from sevenfold.contracts.runs import RunError, RunInput

# Keys of `data` under which a list is worked on item by item, unless the request names another by `fanOut`.
FAN_OUT_KEYS = ("documentIds", "documents", "items")

# Items of one job: its history stays below 2,000 events, and its request below what may be parsed at once.
MAX_ITEMS = 100_000

_DAY = 86_400.0


class JobRequest(StartOptions):
    """Pattern 2: work that is queued. A list in `data` is processed item by item."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"task": "analyze_sentiment", "data": {"documentIds": ["doc1", "doc2", "doc3"]}}]
        }
    )

    task: TaskName
    data: JsonObject = Field(default={}, description="What the agent works on.")
    fan_out: str | None = Field(default=None, description="The key in `data` whose list is processed item by item.")
    concurrency: int = Field(default=10, ge=1, le=1_000, description="Items in work at once.")
    max_failures: int | None = Field(
        default=None, ge=0, description="More failed items than these end the job; any number may fail if absent."
    )
    timeout: Annotated[float, Field(ge=0.5, le=_DAY, allow_inf_nan=False)] = Field(
        default=_DAY, description="Deadline of the whole job, in seconds."
    )


class FanOut(Payload):
    """How a job's list is worked on: each item alone, as a list of one under `key` in the `data` of its request.

    The list itself stands here only, not in the job's own `data`.
    """

    key: str
    items: list[JsonValue]
    concurrency: int
    max_failures: int | None = None


class JobInput(RunInput):
    """The one object that `AsynchronousQueue` takes. Without a fan-out the agent gets `request` as it is."""

    fan_out: FanOut | None = None


class ItemResult(Payload):
    """What became of one item: its reply, or the error that stands in its place."""

    index: int
    reply: Reply | None = None
    error: RunError | None = None


class ItemCounts(Payload):
    """How many items have ended, and how."""

    completed: int = 0
    failed: int = 0

    def add(self, other: "ItemCounts") -> "ItemCounts":
        """The sum."""
        return ItemCounts(completed=self.completed + other.completed, failed=self.failed + other.failed)

    @staticmethod
    def from_results(results: list[ItemResult]) -> "ItemCounts":
        """Counts results."""
        failed = sum(result.error is not None for result in results)
        return ItemCounts(completed=len(results) - failed, failed=failed)
