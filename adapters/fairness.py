"""Fair queues and slots within a process: tenants take turns.

Temporal orders what waits in its task queues (docs/decisions/fairness-and-isolation.md); these order what waits for
something scarce in one process. With one tenant each is a plain FIFO queue.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")

# A tenant that has added nothing for this long leaves its share to the others.
_ACTIVE_SECONDS = 10.0


class FairQueue(Generic[T]):
    """Items of several tenants: the tenants take turns, one item per turn, and the items of each keep their order.

    Invariant: `_queues` holds no empty queue, in the order of the tenants' next turns.
    """

    def __init__(self) -> None:
        self._queues: dict[str, deque[T]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __bool__(self) -> bool:
        return bool(self._queues)

    def append(self, tenant: str, item: T) -> None:
        """Adds an item behind the tenant's others; a tenant without any gets the last turn."""
        self._queues.setdefault(tenant, deque()).append(item)

    def popleft(self) -> T:
        """Removes and returns the item whose turn it is. Raises LookupError if there is none."""
        tenant = next(iter(self._queues), None)
        if tenant is None:
            raise LookupError("the queue is empty")
        queue = self._queues.pop(tenant)
        item = queue.popleft()
        if queue:
            self._queues[tenant] = queue
        return item

    def remove(self, tenant: str, item: T) -> None:
        """Removes an item of the tenant. Raises LookupError if it is not there."""
        queue = self._queues[tenant]
        try:
            queue.remove(item)
        except ValueError:
            raise LookupError("the item is not in the queue") from None
        if not queue:
            del self._queues[tenant]

    def lengths(self) -> dict[str, int]:
        """Returns how many items each tenant has."""
        return {tenant: len(queue) for tenant, queue in self._queues.items()}


def turns_until_served(lengths: Mapping[str, int], tenant: str) -> int:
    """Returns how many items are served up to and including a further one of the tenant, at most. `lengths` is how
    many each tenant has: another tenant gets no more turns than this one needs.
    """
    own = lengths.get(tenant, 0) + 1
    return own + sum(min(length, own) for other, length in lengths.items() if other != tenant)


class FairSlots:
    """`count` slots for which tenants wait in turns."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiters: FairQueue[asyncio.Future[None]] = FairQueue()

    async def acquire(self, tenant: str) -> None:
        """Takes a slot as soon as one is free and the tenants before have had their turns."""
        if self._free and not self._waiters:
            self._free -= 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(tenant, waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                with suppress(LookupError):  # `release` has skipped it already.
                    self._waiters.remove(tenant, waiter)
            else:  # The slot was granted at this very moment.
                self.release()
            raise

    def release(self) -> None:
        """Returns a slot, to the waiter whose turn it is."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1


class TenantShares:
    """How much of `limit` each tenant holds, and may hold: all of it alone, else an equal share among those that hold
    something or have added something in the last 10 s.
    """

    def __init__(self, limit: int, *, active_seconds: float = _ACTIVE_SECONDS) -> None:
        self._limit = limit
        self._active_seconds = active_seconds
        self._held: Counter[str] = Counter()
        self._added_at: dict[str, float] = {}

    def has_room(self, tenant: str) -> bool:
        """Whether the tenant holds less than it may."""
        now = time.monotonic()
        for idle in [one for one, at in self._added_at.items() if now - at >= self._active_seconds]:
            if not self._held[idle]:
                del self._added_at[idle], self._held[idle]
        others = len(self._added_at) - (tenant in self._added_at)
        return self._held[tenant] < max(1, self._limit // (1 + others))

    def add(self, tenant: str) -> None:
        """The tenant holds one more."""
        self._held[tenant] += 1
        self._added_at[tenant] = time.monotonic()

    def remove(self, tenant: str) -> None:
        """The tenant holds one less."""
        self._held[tenant] -= 1
