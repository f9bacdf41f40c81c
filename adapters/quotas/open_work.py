"""Limits the open runs, streams and queued items of tenants and keys.

Temporal's visibility is what counts: a run that has ended frees its place, wherever it ran. A count is kept for a
second, or for 0.1 s if half of the quota is in use, and completed by what this process has started since. So what may
be started over a quota is what other processes start within that time, and what visibility does not show yet (0.1 s
with the embedded server, a second or two with Elasticsearch).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from cachetools import LRUCache
from temporalio.client import Client

from sevenfold.adapters.quotas.exceeded import QuotaExceededError
from sevenfold.contracts.access.quotas import OwnerKind, QuotaName, QuotaOwner, Quotas
from sevenfold.contracts.runs.run import COMPLETED_MEMO, FAILED_MEMO, TOTAL_MEMO, WORKFLOW_TYPES, Pattern

# A count is renewed after a second, or after 0.1 s near the limit; and never before ten times its own duration.
_MAX_AGE_SECONDS, _MIN_AGE_SECONDS, _MAX_SHARE = 1.0, 0.1, 10.0

# So long a start may be missing in visibility.
_LAG_SECONDS = 0.1

# How long a start waits for a place before it is refused.
_MAX_WAIT_SECONDS = 1.0

_MAX_ESTIMATES = 5_000
_RETRY_SECONDS, _NO_PLACES_RETRY_SECONDS = 1.0, 60.0
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

    async def reserve(self, owners: Iterable[QuotaOwner], pattern: Pattern, items: int) -> "Reservation":
        """Reserves the places of a run that is about to start. Raises QuotaExceededError if one of its owners has no
        place for it, and RPCError if Temporal cannot be asked.
        """
        wanted = [(owner, *limit) for owner in owners for limit in _limits(owner.quotas, pattern, items)]
        for owner, quota, limit, amount in wanted:
            await self._count_if_needed(self._estimate(owner, quota), limit, amount)
        # Without an await from here on, so that nobody else takes the places.
        for owner, quota, limit, amount in wanted:
            if (used := self._estimate(owner, quota).value) + amount > limit:
                _refuse(owner, quota, limit, amount, used)
        return Reservation([self._estimate(owner, quota).add(amount) for owner, quota, _, amount in wanted])

    async def _count_if_needed(self, estimate: "_Estimate", limit: int, amount: int) -> None:
        is_far = 2 * (estimate.value + amount) <= limit
        await estimate.refresh(_MAX_AGE_SECONDS if is_far else _MIN_AGE_SECONDS)
        # A run that has just started may be counted twice, and one that has just ended once more: visibility lags.
        deadline = time.monotonic() + _MAX_WAIT_SECONDS
        while estimate.value + amount > limit >= amount and time.monotonic() < deadline:
            await asyncio.sleep(_LAG_SECONDS)
            await estimate.refresh(_MIN_AGE_SECONDS)

    def _estimate(self, owner: QuotaOwner, quota: QuotaName) -> "_Estimate":
        key = (owner.kind, owner.name, quota)
        estimate = self._estimates.get(key)
        if estimate is None:
            estimate = self._estimates[key] = _Estimate(self._counter(owner, quota))
        return estimate

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


def _refuse(owner: QuotaOwner, quota: QuotaName, limit: int, amount: int, used: int) -> NoReturn:
    what = f"The {owner.kind} may have {limit:,} {_NOUNS[quota]} at the same time"
    if limit == 0:
        detail = f"The {owner.kind} may have no {_NOUNS[quota]}. Ask for a larger quota."
        retry_after = None if quota is QuotaName.QUEUED_ITEMS else _NO_PLACES_RETRY_SECONDS
        raise QuotaExceededError(owner, quota, limit, detail, retry_after=retry_after)
    if amount > limit:
        detail = f"{what}, and this job alone has {amount:,}. Send several smaller jobs, one after another."
        raise QuotaExceededError(owner, quota, limit, detail, retry_after=None)
    free = max(0, limit - used)
    has = f"has {free:,} places left, and this job takes {amount:,}" if free else "has no place left"
    detail = f"{what}, and {has}. Send the request again when some have ended."
    raise QuotaExceededError(owner, quota, limit, detail, retry_after=_RETRY_SECONDS, remaining=free)


def _limits(quotas: Quotas, pattern: Pattern, items: int) -> Iterator[tuple[QuotaName, int, int]]:
    """Yields the quotas that a run counts against, each with its limit and what the run takes of it."""
    if quotas.open_runs is not None:
        yield QuotaName.OPEN_RUNS, quotas.open_runs, 1
    if quotas.streams is not None and pattern is Pattern.STREAMING:
        yield QuotaName.STREAMS, quotas.streams, 1
    if quotas.queued_items is not None and pattern is Pattern.QUEUE:
        yield QuotaName.QUEUED_ITEMS, quotas.queued_items, items


@dataclass
class _Place:
    """What a start takes. `started_at` is None until Temporal has the run: no count can have it before."""

    amount: int
    started_at: float | None = None


@dataclass(frozen=True)
class Reservation:
    """The places of a run that is about to start. It is given back by `release` if the run does not start."""

    places: list[_Place]

    def start(self) -> None:
        """Temporal has the run: counts have it soon."""
        for place in self.places:
            place.started_at = time.monotonic()

    def release(self) -> None:
        """The run was not started."""
        for place in self.places:
            place.amount = 0
            place.started_at = 0.0


class _Estimate:
    """A count, and what was started since. At most one `_counting` runs; those that need it share it."""

    def __init__(self, count: Count) -> None:
        self._count = count
        self._counted = 0
        self._counted_at = float("-inf")
        self._seconds = 0.0
        self._places: list[_Place] = []
        self._counting: asyncio.Task[None] | None = None

    @property
    def value(self) -> int:
        """The count, with what is about to start or was started since and is not in it."""
        seen_until = self._counted_at - _LAG_SECONDS
        self._places = [one for one in self._places if one.started_at is None or one.started_at >= seen_until]
        return self._counted + sum(one.amount for one in self._places)

    def add(self, amount: int) -> _Place:
        """Adds what is about to start."""
        place = _Place(amount)
        self._places.append(place)
        return place

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
