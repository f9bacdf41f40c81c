"""This process's lease of an agent's limits, renewed in the background so that most calls need no request.

The `AgentLimits` workflow allocates the limits to processes; the lease hands its slots to calls in order.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog
from temporalio.client import WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.service import RPCError

from sevenfold.adapters.agents.admission.call_waiters import CallWaiters
from sevenfold.adapters.agents.admission.recent_rejections import RecentRejections
from sevenfold.adapters.agents.admission.token_bucket import TokenBucket
from sevenfold.adapters.fairness import turns_until_served
from sevenfold.adapters.temporal.cancellation import raise_if_cancelled
from sevenfold.contracts.agents.errors import AgentBusy
from sevenfold.contracts.agents.limits import LEASE_SECONDS, LeaseGrant, LeaseRequest, Limits

log = structlog.get_logger(__name__)

RequestLease = Callable[[LeaseRequest], Awaitable[LeaseGrant]]

# What a request raises that no worker or no server has answered.
UNANSWERED = (TimeoutError, RPCError, WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError)

# Renewal intervals in seconds: normal, with unmet demand, and the minimum.
_RENEW_SECONDS, _RENEW_UNMET_SECONDS, _MIN_RENEW_SECONDS = 2.0, 0.5, 0.1

# A process that joins finds the limits with the others, perhaps unused. They report every 2 s, so it has its part
# within this time: its first calls wait for it rather than fail.
_JOIN_SECONDS = 3.5

# A lease that no call uses for this long is not renewed: it expires, or is given back if it has a rate.
_IDLE_SECONDS = 5.0

_MIN_RETRY, _MAX_RETRY = 1.0, 30.0

# A call that starts at the end of the lease is still on its way when the lease expires.
_EXPIRY_MARGIN_SECONDS = 1.0
_SMOOTHING = 0.2

# A process that ends does not wait longer to give a lease back.
_GIVE_BACK_SECONDS = 1.0


class QuotaLease:
    """One process's lease of one agent's limits.

    Invariants:

    - `_in_use` calls hold slots.
    - A call starts only if the lease has not expired, `_in_use < _slots` (with a limit of concurrency) and there is
      a token (with a limit of the rate).
    - Tokens come from the workflow and from this process's share of the rate. What is not used returns with the
      lease: all processes together never have more than the burst.
    - After every renewal `_slots >= _in_use`: calls in flight keep their slots.
    - `_target_slots < _slots` means that other processes wait: each released slot is given up.
    - At most one `_renewal` runs, and it runs while the lease is used.
    """

    def __init__(
        self,
        process_id: str,
        limits: Limits,
        request_lease: RequestLease,
        *,
        join_seconds: float = _JOIN_SECONDS,
    ) -> None:
        self._join_seconds = join_seconds
        self._process_id = process_id
        self._limits = limits
        self._request_lease = request_lease
        self._slots, self._target_slots = 0, 0
        self._bucket = TokenBucket()
        self._attempts, self._counted_at, self._calls_per_second = 0, time.monotonic(), 0.0
        self._expires_at, self._joined_at, self._used_at = 0.0, float("-inf"), 0.0
        self._in_use = 0
        self._waiters = CallWaiters()
        self._rejections = RecentRejections()
        self._mean_call_seconds: float | None = None  # Moving average, None before the first call ends.
        self._renewal: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_live(self) -> bool:
        """Whether there is a lease that has not expired."""
        return time.monotonic() < self._expires_at

    def try_acquire(self) -> bool:
        """Takes a slot if one is free and no call waits. Returns whether it did."""
        self._used_at = time.monotonic()
        self._attempts += 1
        if self._waiters or not self._has_capacity():
            return False
        self._consume()
        return True

    async def acquire(self, tenant: str, timeout_seconds: float | None) -> None:
        """Takes a slot when it is the tenant's turn.

        Raises AgentBusy after `timeout_seconds` seconds (None: no time-out), or at once if the expected wait is
        longer. While the process joins, the time-out is at least the time that this takes.
        """
        if self.try_acquire():
            return
        self._changed.set()
        self._ensure_renewal()
        if timeout_seconds is not None:
            timeout_seconds = max(timeout_seconds, self._joined_at + self._join_seconds - time.monotonic())
            if self._expected_wait(tenant) > timeout_seconds:
                raise self._build_rejection(tenant)
        is_item = timeout_seconds is None
        waiter = self._waiters.add(tenant, is_item=is_item)
        self._serve_waiters()
        try:
            async with asyncio.timeout(timeout_seconds):
                await waiter
        except BaseException as error:
            if waiter.cancelled():
                self._waiters.remove(tenant, waiter, is_item=is_item)
            else:  # The slot was granted at this very moment.
                self.release_unused()
            if isinstance(error, TimeoutError):
                raise self._build_rejection(tenant) from None
            raise

    def charge(self, calls: float) -> None:
        """Counts more calls than the one that was admitted. What is over the rate delays those that follow."""
        self._bucket.take(calls)

    def release(self, seconds: float) -> None:
        """Returns the slot of a call that took `seconds` seconds."""
        self._in_use -= 1
        self._used_at = time.monotonic()
        if seconds:
            before = seconds if self._mean_call_seconds is None else self._mean_call_seconds
            self._mean_call_seconds = before + _SMOOTHING * (seconds - before)
        if self._slots > self._target_slots:  # Other processes wait for slots.
            self._slots -= 1
            self._changed.set()
        self._serve_waiters()

    def release_unused(self) -> None:
        """Returns the slot and the token of a call that was not made."""
        if self._limits.rate is not None:
            self._bucket.take(-1)
        self.release(0.0)

    async def aclose(self, *, gives_back: bool = False) -> None:
        """Stops renewing; the lease expires, or is given back at once for the processes that come after this one."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        if gives_back and self.is_live:
            await self._give_back()

    async def _give_back(self) -> None:
        """Ends the lease. If the workflow cannot be reached, it expires."""
        self._expires_at = 0.0
        nothing = LeaseRequest(process=self._process_id, limits=self._limits, tokens=self._bucket.empty())
        with suppress(*UNANSWERED):
            await asyncio.wait_for(self._request_lease(nothing), _GIVE_BACK_SECONDS)

    def seconds_until_token(self) -> float:
        """Returns when the rate permits another call, as far as this process's share of it goes."""
        return self._bucket.seconds_until_next()

    def _has_capacity(self) -> bool:
        if not self.is_live:
            return False
        if self._limits.max_concurrency is not None and self._in_use >= self._slots:
            return False
        return self._limits.rate is None or self._bucket.count() >= 1

    def _consume(self) -> None:
        self._in_use += 1
        if self._limits.rate is not None:
            self._bucket.take()
        self._ensure_renewal()

    def _ensure_renewal(self) -> None:
        if self._renewal is None or self._renewal.done():
            if not self.is_live:
                self._joined_at = time.monotonic()
            self._renewal = asyncio.create_task(self._renew_continuously())

    def _serve_waiters(self) -> None:
        """Grants free slots."""
        while self._has_capacity() and (waiter := self._waiters.pop()) is not None:
            self._consume()
            waiter.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiters and self._limits.rate is not None and (seconds := self._bucket.seconds_until_next()) > 0:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._serve_waiters)

    def _throughput(self) -> float:
        """Calls per second of this process; 0 while it is unknown."""
        rates = []
        if self._limits.max_concurrency is not None and self._mean_call_seconds is not None:
            rates.append(self._slots / max(self._mean_call_seconds, 0.001))
        if self._limits.rate is not None:
            rates.append(self._bucket.rate)
        return min(rates, default=0.0)

    def _expected_wait(self, tenant: str) -> float:
        throughput = self._throughput() / (2 if self._waiters.has_items else 1)
        if not throughput or time.monotonic() >= self._expires_at:
            return 0.0
        return turns_until_served(self._waiters.count_calls(), tenant) / throughput

    def _build_rejection(self, tenant: str) -> AgentBusy:
        """Builds AgentBusy with a `retry_after` of about the time that all recently rejected callers of the tenant
        need.
        """
        returning = self._rejections.count()
        self._rejections.record(tenant)
        self._ensure_renewal()
        throughput = self._throughput()
        turns = turns_until_served(returning + Counter(self._waiters.count_calls()), tenant)
        seconds = turns / throughput if throughput else _MIN_RETRY
        bounded = min(_MAX_RETRY, max(_MIN_RETRY, seconds))
        return AgentBusy(
            "The agent's limits in sevenfold.toml are used up.", retry_after=bounded * random.uniform(0.7, 1.3)
        )

    async def _renew_continuously(self) -> None:
        """Renews the lease while it is used, and gives back that of a rate when it is not."""
        while self._is_used():
            self._changed.clear()
            await self._renew()
            self._serve_waiters()
            await asyncio.sleep(_MIN_RENEW_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._renew_interval()):
                    await self._changed.wait()
            if not self._is_used() and self._limits.rate is not None:
                await self._give_back()
                self._joined_at = time.monotonic()

    def _is_used(self) -> bool:
        return bool(self._in_use or self._demand()) or time.monotonic() - self._used_at < _IDLE_SECONDS

    def _count_attempts(self, now: float) -> float:
        """Returns how many calls per second there were since the last renewals, refused ones too."""
        seconds = now - self._counted_at
        if seconds >= _MIN_RENEW_SECONDS:
            latest = self._attempts / seconds
            self._calls_per_second = max(latest, self._calls_per_second + 0.5 * (latest - self._calls_per_second))
            self._attempts, self._counted_at = 0, now
        return self._calls_per_second

    def _demand(self) -> int:
        """Returns how many more calls could start now."""
        return len(self._waiters) + self._rejections.count().total()

    def _renew_interval(self) -> float:
        if not self._demand():
            return _RENEW_SECONDS
        slots_full = self._limits.max_concurrency is None or self._slots >= self._limits.max_concurrency
        rate_full = self._limits.rate is None or self._bucket.rate >= 0.99 * self._limits.rate
        return _RENEW_SECONDS if slots_full and rate_full else _RENEW_UNMET_SECONDS

    async def _renew(self) -> None:
        requested_at = time.monotonic()
        if not self.is_live:
            self._bucket.empty()  # The workflow has taken back the tokens of an expired lease.
        request = LeaseRequest(
            process=self._process_id,
            limits=self._limits,
            # The whole lease may be used until the response arrives, and the response may be lost.
            in_use=max(self._in_use, self._slots if requested_at < self._expires_at else 0),
            demand=self._in_use + self._demand(),
            is_calling=bool(self._demand()) or requested_at - self._used_at < _IDLE_SECONDS,
            tokens=0.0 if self._limits.rate is None else self._bucket.count(),
            calls_per_second=self._count_attempts(requested_at),
        )
        if not request.is_calling:
            self._bucket.empty()  # They are given back.
        try:
            grant = await self._request_lease(request)
        except UNANSWERED as error:
            raise_if_cancelled()
            log.warning("renewing a quota lease failed", error=str(error))
            return
        self._target_slots = grant.target_slots
        self._slots = max(self._in_use, min(grant.slots, grant.target_slots))
        if self._slots < grant.slots:
            self._changed.set()  # Report the returned slots.
        if self._limits.rate is not None:
            self._bucket.refill_at(grant.rate, grant.max_tokens, grant.tokens)
        self._expires_at = requested_at + LEASE_SECONDS - _EXPIRY_MARGIN_SECONDS
