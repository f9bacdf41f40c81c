"""Jobs (pattern 2): one agent call, or one per item."""

from typing import Annotated

from pydantic import ConfigDict, Field, JsonValue

from sevenfold.contracts.agents.interface import Reply
from sevenfold.contracts.agents.usage import NO_USAGE, UsageTotals
from sevenfold.contracts.json.pointers import escape_pointer
from sevenfold.contracts.payload import JsonObject, Payload
from sevenfold.contracts.runs.requests import StartOptions, TaskName
from sevenfold.contracts.runs.run import TOTAL_MEMO, RunError, RunInput

# Keys of `data` whose list is processed item by item, unless the request names another key by `fanOut`.
FAN_OUT_KEYS = ("documentIds", "documents", "items")

# Maximum items per job: keeps the history below 2,000 events and the request below the JSON limits.
MAX_ITEMS = 100_000

_DAY = 86_400.0


class JobRequest(StartOptions):
    """Pattern 2: queued work. A list in `data` is processed item by item."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"task": "analyze_sentiment", "data": {"documentIds": ["doc1", "doc2", "doc3"]}}]
        }
    )

    task: TaskName
    data: JsonObject = Field(default={}, description="What the agent works on.")
    fan_out: str | None = Field(default=None, description="The key in `data` whose list is processed item by item.")
    concurrency: int = Field(default=10, ge=1, le=1_000, description="Items processed concurrently.")
    max_failures: int | None = Field(
        default=None, ge=0, description="The job fails if more items than this fail; unlimited if absent."
    )
    timeout: Annotated[float, Field(ge=0.5, le=_DAY, allow_inf_nan=False)] = Field(
        default=_DAY, description="Deadline of the whole job, in seconds."
    )


class FanOut(Payload):
    """Fan-out of a job: each item is sent alone, as a list of one under `key` in the request's `data`.

    The job's own `data` does not repeat the list.
    """

    key: str
    items: list[JsonValue]
    concurrency: int
    max_failures: int | None = None


class InvalidJobError(Exception):
    """A job names something that is not a list, or has too many items. `pointer`: the field of the request."""

    def __init__(self, pointer: str, reason: str) -> None:
        super().__init__(reason)
        self.pointer = pointer


def build_fan_out(job: JobRequest, *, takes_batches: bool) -> FanOut | None:
    """Returns the list to process item by item, or None if there is none or the agent takes it whole. Raises
    InvalidJobError if `fanOut` names something that is not a list of 1 to MAX_ITEMS items.
    """
    key = job.fan_out or next((name for name in FAN_OUT_KEYS if name in job.data), None)
    if key is None:
        return None
    if key not in job.data:
        raise InvalidJobError("/fanOut", f"names {key}, which is not a key of data. Name a list in data.")
    items: JsonValue = job.data[key]
    pointer = f"/data/{escape_pointer(key)}"
    if not isinstance(items, list):
        raise InvalidJobError(pointer, "must be a list. Name another key of data in fanOut.")
    if not items:
        raise InvalidJobError(pointer, "must hold at least one item")
    if takes_batches:
        return None
    if len(items) > MAX_ITEMS:
        raise InvalidJobError(
            pointer,
            f"holds {len(items):,} items, but a job takes {MAX_ITEMS:,}. Start several jobs, or let the agent "
            "take the whole list in one call (batch_tasks in sevenfold.toml).",
        )
    return FanOut(key=key, items=items, concurrency=min(job.concurrency, len(items)), max_failures=job.max_failures)


def split_job(job: JobRequest, *, takes_batches: bool) -> tuple[JsonObject, FanOut | None]:
    """Returns a job's data without the list to process item by item, and that list. Raises InvalidJobError."""
    fan_out = build_fan_out(job, takes_batches=takes_batches)
    if fan_out is None:
        return job.data, None
    return {name: value for name, value in job.data.items() if name != fan_out.key}, fan_out


class JobInput(RunInput):
    """Input of `AsynchronousQueue`. Without a fan-out the agent gets `request` unchanged."""

    fan_out: FanOut | None = None

    @property
    def items(self) -> int:
        """How many items count against quotas: a job without a list is one."""
        return len(self.fan_out.items) if self.fan_out is not None else 1

    @property
    def memo(self) -> dict[str, int]:
        """The memo of a job with items."""
        return {TOTAL_MEMO: self.items} if self.fan_out is not None else {}


class ItemResult(Payload):
    """Result of one item: its reply or its error."""

    index: int
    reply: Reply | None = None
    error: RunError | None = None


class ItemCounts(Payload):
    """Counts of finished items, and what their attempts have used."""

    completed: int = 0
    failed: int = 0
    usage: UsageTotals = NO_USAGE

    def add(self, other: "ItemCounts") -> "ItemCounts":
        """Returns the sum."""
        return ItemCounts(
            completed=self.completed + other.completed,
            failed=self.failed + other.failed,
            usage=self.usage.add(other.usage),
        )

    @staticmethod
    def from_results(results: list[ItemResult]) -> "ItemCounts":
        """Counts results."""
        failed = sum(result.error is not None for result in results)
        return ItemCounts(completed=len(results) - failed, failed=failed)
