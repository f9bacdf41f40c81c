"""How long a job will take, in the words of the article."""

from sevenfold.adapters.temporal.durations import TaskKind
from sevenfold.api.dependencies import Gateway
from sevenfold.contracts.runs import batch_task_queue

# Upper bounds in seconds, and what is said below them.
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
    """`"5-10 minutes"`; `"unknown"` where nothing was measured and nothing configured."""
    if seconds is None:
        return "unknown"
    return next((words for bound, words in _WORDS if seconds < bound), "more than a day")


async def estimate_job_seconds(gateway: Gateway, kind: TaskKind, items: int, concurrency: int) -> float | None:
    """Seconds until a job of so many items is expected to end, the backlog before it included."""
    per_item = (await gateway.durations.get_stats(kind)).item_seconds
    if per_item is None:
        configured = gateway.durations.estimates.get(kind.agent)
        if configured is None:
            return None
        per_item = configured / min(concurrency, items)
    return per_item * items + await gateway.durations.backlog_seconds(batch_task_queue(gateway.task_queue))
