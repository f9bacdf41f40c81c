"""Limits the open runs, streams and queued items of tenants and keys.

Temporal's visibility is what counts: a run that has ended frees its place, wherever it ran. A count is kept for a
second, or for 0.1 s if half of the quota is in use, and completed by what this process has started since. So what may
be started over a quota is what other processes start within that time, and what visibility does not show yet (0.1 s
with the embedded server, a second or two with Elasticsearch).
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import NoReturn

from cachetools import LRUCache
from temporalio.client import Client

from sevenfold.adapters.quotas.exceeded import QuotaExceededError
from sevenfold.contracts.quotas import OwnerKind, QuotaName, QuotaOwner
from sevenfold.contracts.runs import COMPLETED_MEMO, FAILED_MEMO, TOTAL_MEMO, WORKFLOW_TYPES, Pattern

# A count is renewed after a second, or after 0.1 s near the limit; and never before ten times its own duration.
_MAX_AGE_SECONDS, _MIN_AGE_SECONDS, _MAX_SHARE = 1.0, 0.1, 10.0

# So long a start may be missing in visibility.
_LAG_SECONDS = 0.1

_MAX_ESTIMATES = 5_000
_RETRY_SECONDS = 1.0
_RUN_TYPES = ", ".join(f"'{name}'" for pattern, name in WORKFLOW_TYPES.items() if pattern is not Pattern.EVENT)
_JOBS = f"WorkflowType = '{WORKFLOW_TYPES[Pattern.QUEUE]}'"
_STREAMS = f"WorkflowType = '{WORKFLOW_TYPES[Pattern.STREAMING]}'"

Count = Callable[[], Awaitable[int]]

_NOUNS = {
    QuotaName.OPEN_RUNS: "open runs",
    QuotaName.STREAMS: "open streams",
    QuotaName.QUEUED_ITEMS: "items in open jobs",
}


class OpenWork:
    """The counts of this process."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._estimates: LRUCache[tuple[OwnerKind, str, QuotaName], _Estimate] = LRUCache(_MAX_ESTIMATES)

    async def admit(self, owners: Iterable[QuotaOwner], pattern: Pattern, items: int) -> None:
        """Counts a run that is about to start. Raises QuotaExceededError if one of its owners has no place for it,
        and RPCError if Temporal cannot be asked.
        """
        for owner in owners:
            quotas = owner.quotas
            if quotas.open_runs is not None:
                await self._admit(owner, QuotaName.OPEN_RUNS, quotas.open_runs, 1)
            if quotas.streams is not None and pattern is Pattern.STREAMING:
                await self._admit(owner, QuotaName.STREAMS, quotas.streams, 1)
            if quotas.queued_items is not None and pattern is Pattern.QUEUE:
                await self._admit(owner, QuotaName.QUEUED_ITEMS, quotas.queued_items, items)

    async def _admit(self, owner: QuotaOwner, quota: QuotaName, limit: int, amount: int) -> None:
        key = (owner.kind, owner.name, quota)
        estimate = self._estimates.get(key)
        if estimate is None:
            estimate = self._estimates[key] = _Estimate(self._counter(owner, quota))
        is_far = 2 * (estimate.value + amount) <= limit
        await estimate.refresh(_MAX_AGE_SECONDS if is_far else _MIN_AGE_SECONDS)
        for _ in range(2):  # What was started just before a count may be in it twice. A moment later it is not.
            if estimate.value + amount > limit >= amount:
                await asyncio.sleep(_LAG_SECONDS)
                await estimate.refresh(_MIN_AGE_SECONDS)
        if estimate.value + amount > limit:
            _refuse(owner, quota, limit, amount)
        estimate.add(amount)

    def _counter(self, owner: QuotaOwner, quota: QuotaName) -> Count:
        attribute = "Tenant" if owner.kind is OwnerKind.TENANT else "ApiKey"
        open_runs = f"{attribute} = '{owner.name}' AND ExecutionStatus = 'Running'"
        if quota is QuotaName.QUEUED_ITEMS:
            return lambda: self._count_items(f"{_JOBS} AND {open_runs}")
        types = _STREAMS if quota is QuotaName.STREAMS else f"WorkflowType IN ({_RUN_TYPES})"
        return lambda: self._count_runs(f"{types} AND {open_runs}")

    async def _count_runs(self, query: str) -> int:
        return (await self._client.count_workflows(query)).count

    async def _count_items(self, query: str) -> int:
        items = 0
        async for job in self._client.list_workflows(query, page_size=500):
            total = await job.memo_value(TOTAL_MEMO, 1)
            ended = await job.memo_value(COMPLETED_MEMO, 0) + await job.memo_value(FAILED_MEMO, 0)
            items += max(0, total - ended)
        return items


def _refuse(owner: QuotaOwner, quota: QuotaName, limit: int, amount: int) -> NoReturn:
    what = f"The {owner.kind} may have {limit:,} {_NOUNS[quota]} at the same time"
    if amount > limit > 0:
        detail = f"{what}, and this job alone has {amount:,}. Send several smaller jobs, one after another."
    else:
        detail = f"{what}, and has no place left. Send the request again when some have ended."
    raise QuotaExceededError(owner, quota, limit, detail, retry_after=_RETRY_SECONDS)


class _Estimate:
    """A count, and what was started since. At most one `_counting` runs; those that need it share it."""

    def __init__(self, count: Count) -> None:
        self._count = count
        self._counted = 0
        self._counted_at = float("-inf")
        self._seconds = 0.0
        self._started: deque[tuple[float, int]] = deque()
        self._counting: asyncio.Task[None] | None = None

    @property
    def value(self) -> int:
        """The count, with what was started since and is not in it."""
        while self._started and self._started[0][0] < self._counted_at - _LAG_SECONDS:
            self._started.popleft()
        return self._counted + sum(amount for _, amount in self._started)

    def add(self, amount: int) -> None:
        """Adds what starts now."""
        self._started.append((time.monotonic(), amount))

    async def refresh(self, max_age: float) -> None:
        """Counts again if the count is older than `max_age` seconds. Raises RPCError."""
        if time.monotonic() - self._counted_at < max(max_age, _MAX_SHARE * self._seconds):
            return
        if self._counting is None or self._counting.done():
            self._counting = asyncio.create_task(self._renew())
        await asyncio.shield(self._counting)

    async def _renew(self) -> None:
        started_at = time.monotonic()
        self._counted = await self._count()
        self._counted_at = started_at
        self._seconds = time.monotonic() - started_at
