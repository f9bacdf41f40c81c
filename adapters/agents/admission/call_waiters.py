"""Calls that wait for a slot of a lease."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from sevenfold.adapters.fairness import FairQueue

Waiter = asyncio.Future[None]


class CallWaiters:
    """Two queues that are served alternately: items of jobs, which wait without a time-out, and other calls. In each
    of them the tenants take turns, and a tenant's waiters are served in order of arrival.
    """

    def __init__(self) -> None:
        self._calls: FairQueue[Waiter] = FairQueue()
        self._items: FairQueue[Waiter] = FairQueue()
        self._items_go_next = False

    def __len__(self) -> int:
        return len(self._calls) + len(self._items)

    @property
    def has_items(self) -> bool:
        """Whether items of jobs wait."""
        return bool(self._items)

    def count_calls(self) -> Mapping[str, int]:
        """Returns how many calls of each tenant wait, items of jobs excepted."""
        return self._calls.lengths()

    def add(self, tenant: str, *, is_item: bool) -> Waiter:
        """Returns the future that `pop` returns when it is the caller's turn."""
        waiter: Waiter = asyncio.get_running_loop().create_future()
        (self._items if is_item else self._calls).append(tenant, waiter)
        return waiter

    def remove(self, tenant: str, waiter: Waiter, *, is_item: bool) -> None:
        """Removes a waiter that gave up; `pop` may have skipped it already."""
        with suppress(LookupError):
            (self._items if is_item else self._calls).remove(tenant, waiter)

    def pop(self) -> Waiter | None:
        """Returns the next waiter that has not given up."""
        while self:
            from_items = bool(self._items) and (self._items_go_next or not self._calls)
            waiter = (self._items if from_items else self._calls).popleft()
            if not waiter.done():
                self._items_go_next = not from_items
                return waiter
        return None
