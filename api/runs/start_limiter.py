"""Limits how many runs start at the same time while the gateway is busy; tenants take turns."""

import asyncio
import time
from contextlib import suppress

from sevenfold.adapters.fairness import FairQueue
from sevenfold.api.http.problems import ProblemError, ProblemType

# A tenant that has started nothing for this long is not active.
_ACTIVE_SECONDS = 10.0

# After this long without an answer a run no longer counts as starting: its agent is running.
_HOLD_SECONDS = 0.05

# How long a start waits for a permit.
_MAX_WAIT_SECONDS = 10.0

# Bounds of the runs that are starting. The limit falls while starts take longer than `_SLOW` times the fastest.
_MIN_LIMIT, _MAX_LIMIT = 2.0, 1_000.0
_SLOW = 1.5
_DECREASE = 0.9

# The fastest start is forgotten slowly: in a minute it counts for 6 % more.
_FORGET_PER_SECOND = 0.001


class StartLimiter:
    """Limits how many runs are starting: from the start to the answer, or for 50 ms without one.

    With one active tenant nothing waits. With several, a start waits while there are as many as the limit, and the
    waiting tenants take turns, so a flood of one tenant delays another's run by little. The limit adapts to the
    machine: it falls while the start of a run takes much longer than the fastest one did, and rises otherwise.
    """

    def __init__(self, *, max_wait_seconds: float = _MAX_WAIT_SECONDS) -> None:
        self._max_wait_seconds = max_wait_seconds
        self._limit = _MIN_LIMIT
        self._in_use = 0
        self._waiters: FairQueue[asyncio.Future[None]] = FairQueue()
        self._active: dict[str, float] = {}
        self._fastest = float("inf")
        self._fastest_at = 0.0

    async def acquire(self, tenant: str) -> "StartPermit":
        """Waits for a permit, which is released by itself after 50 ms. Raises 503 after 10 s."""
        self._active[tenant] = time.monotonic()
        if self._waiters or not self._has_room():
            await self._wait(tenant)
        else:
            self._in_use += 1
        return StartPermit(self)

    async def _wait(self, tenant: str) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(tenant, waiter)
        try:
            async with asyncio.timeout(self._max_wait_seconds):
                await waiter
        except (asyncio.CancelledError, TimeoutError) as error:
            if waiter.cancelled():
                with suppress(LookupError):
                    self._waiters.remove(tenant, waiter)
            else:
                self.release()
            if isinstance(error, TimeoutError):
                raise _overloaded() from None
            raise

    def _has_room(self) -> bool:
        return self._in_use < self._limit or self._has_one_tenant()

    def _has_one_tenant(self) -> bool:
        now = time.monotonic()
        self._active = {one: at for one, at in self._active.items() if now - at < _ACTIVE_SECONDS}
        return len(self._active) <= 1

    def release(self) -> None:
        """A run no longer counts as starting."""
        self._in_use -= 1
        while self._waiters and self._has_room():
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._in_use += 1
                waiter.set_result(None)

    def record(self, seconds: float) -> None:
        """Adapts the limit to how long a start took."""
        now = time.monotonic()
        remembered = self._fastest * (1 + _FORGET_PER_SECOND * (now - self._fastest_at))
        self._fastest, self._fastest_at = min(seconds, remembered), now
        if seconds > _SLOW * self._fastest:
            self._limit = max(_MIN_LIMIT, self._limit * _DECREASE)
        else:
            self._limit = min(_MAX_LIMIT, self._limit + 1 / self._limit)


def _overloaded() -> ProblemError:
    return ProblemError(
        ProblemType.OVERLOADED,
        "The gateway has more starts of this tenant than it can make. Send the request again after Retry-After.",
        retry_after=_MAX_WAIT_SECONDS,
    )


class StartPermit:
    """The permit of one start."""

    def __init__(self, limiter: StartLimiter) -> None:
        self._limiter = limiter
        self._taken_at = time.monotonic()
        self._is_released = False
        self._timer = asyncio.get_running_loop().call_later(_HOLD_SECONDS, self.release)

    def started(self) -> None:
        """Temporal accepted the run: records how long the start took."""
        self._limiter.record(time.monotonic() - self._taken_at)

    def release(self) -> None:
        """Returns the permit. Idempotent."""
        if not self._is_released:
            self._is_released = True
            self._timer.cancel()
            self._limiter.release()
