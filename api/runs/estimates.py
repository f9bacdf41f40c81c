"""Estimates how long a job takes, in the words of the article."""

from dataclasses import dataclass

from sevenfold.adapters.temporal.durations import Durations, TaskKind
from sevenfold.contracts.runs.run import batch_task_queue

# Upper bounds in seconds, and the wording below each.
_WORDS = (
    (60, "less than a minute"),
    (120, "1-2 minutes"),
    (300, "2-5 minutes"),
    (600, "5-10 minutes"),
    (1_200, "10-20 minutes"),
    (1_800, "20-30 minutes"),
    (3_600, "30-60 minutes"),
    (7_200, "1-2 hours"),
    (21_600, "2-6 hours"),
    (86_400, "6-24 hours"),
)


def describe_seconds(seconds: float | None) -> str:
    """Returns wording such as `5-10 minutes`; `unknown` if nothing was measured or configured."""
    if seconds is None:
        return "unknown"
    return next((words for bound, words in _WORDS if seconds < bound), "more than a day")


@dataclass(frozen=True)
class JobEstimator:
    """Estimates jobs by measured durations, else by the configured ones."""

    durations: Durations
    task_queue: str

    async def estimate_seconds(self, kind: TaskKind, items: int, concurrency: int) -> float | None:
        """Returns the seconds until a job of `items` items ends, including the backlog before it; None if unknown."""
        per_item = (await self.durations.get_stats(kind)).item_seconds
        if per_item is None:
            configured = self.durations.estimates.get(kind.agent)
            if configured is None:
                return None
            per_item = configured / min(concurrency, items)
        backlog = await self.durations.backlog_seconds(batch_task_queue(self.task_queue), kind.tenant)
        return per_item * items + backlog
