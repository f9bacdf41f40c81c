"""How long a job will take, in the words of the article."""

from api.durations import Work
from api.gateway import Gateway
from contracts.runs import batch_queue

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


def in_words(seconds: float | None) -> str:
    """`"5-10 minutes"`; `"unknown"` where nothing was measured and nothing configured."""
    if seconds is None:
        return "unknown"
    return next((words for bound, words in _WORDS if seconds < bound), "more than a day")


async def job_seconds(gateway: Gateway, work: Work, items: int, concurrency: int) -> float | None:
    """Seconds until a job of so many items is expected to end, the backlog before it included."""
    per_item = (await gateway.durations.of(work)).item
    if per_item is None:
        configured = gateway.durations.estimates.get(work.agent)
        if configured is None:
            return None
        per_item = configured / min(concurrency, items)
    return per_item * items + await gateway.durations.backlog(batch_queue(gateway.task_queue))
