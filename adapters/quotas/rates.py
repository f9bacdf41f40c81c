"""Limits the rates of requests and events of tenants and keys, over all processes together.

Each rate is a lease of the workflow that divides agents' limits between processes
(`sevenfold.adapters.agents.admission.quota_lease`), so most requests need no call to Temporal.
"""

import asyncio
import math
import secrets
import socket
from collections.abc import Iterable
from typing import NoReturn

from cachetools import LRUCache
from temporalio.client import Client

from sevenfold.adapters.agents.admission.admission import lease_requester
from sevenfold.adapters.agents.admission.quota_lease import QuotaLease
from sevenfold.adapters.quotas.exceeded import QuotaExceededError
from sevenfold.contracts.access.quotas import QuotaName, QuotaOwner
from sevenfold.contracts.agents.config import format_rate
from sevenfold.contracts.agents.errors import AgentBusy
from sevenfold.contracts.agents.limits import Limits

# How long a request waits for its turn, which smooths what is only just too fast.
_WAIT_SECONDS = 0.25

# A request that finds no lease yet waits for the first one.
_FIRST_LEASE_SECONDS = 1.0

# So many requests may come at once after a pause, or one second's worth if that is more.
_MIN_BURST = 5.0
_BURST_SECONDS = 1.0

# More tenants and keys than this at the same moment take turns for a lease in memory.
_MAX_LEASES = 5_000

_WINDOWS = (1, 60, 3_600)


class RateQuotas:
    """The leases of this process.

    While no lease can be had, because no worker answers, requests are admitted: a gateway that accepts jobs without a
    worker must not refuse them for a limit that nobody can read. What the workers' absence lets through is bounded by
    nothing but the clients.
    """

    def __init__(self, client: Client, task_queue: str) -> None:
        self._client = client
        self._task_queue = task_queue
        self._process_id = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._leases: LRUCache[tuple[str, float], QuotaLease] = LRUCache(_MAX_LEASES)

    async def admit_request(self, owners: Iterable[QuotaOwner]) -> None:
        """Counts a request. Raises QuotaExceededError if one of its owners has used up its rate: the request then
        counts for none of them.
        """
        await self._admit([(owner, owner.quotas.rate) for owner in owners], QuotaName.REQUESTS, 1)

    async def admit_events(self, owners: Iterable[QuotaOwner], count: int) -> None:
        """Counts events and the reactions that they start. Raises QuotaExceededError as `admit_request` does.

        Events that come together are admitted together: what is over the rate delays those that follow.
        """
        await self._admit([(owner, owner.quotas.events) for owner in owners], QuotaName.EVENTS, count)

    async def _admit(self, rates: list[tuple[QuotaOwner, float | None]], quota: QuotaName, count: int) -> None:
        charged: list[QuotaLease] = []
        # The key comes before its tenant: what a key sends beyond its own rate takes nothing from the other keys.
        for owner, rate in reversed(rates):
            if rate is None:
                continue
            try:
                lease = await self._acquire(owner, quota, rate)
            except QuotaExceededError:
                for other in charged:
                    other.charge(-count)
                raise
            if lease is not None:
                lease.charge(count - 1)
                lease.release(0.0)
                charged.append(lease)

    async def _acquire(self, owner: QuotaOwner, quota: QuotaName, rate: float) -> QuotaLease | None:
        """Takes a token; without a lease there is none to take."""
        name = f"{owner.kind}/{owner.name}" + ("" if quota is QuotaName.REQUESTS else f"/{quota}")
        lease = self._leases.get((name, rate))
        if lease is None:
            lease = self._leases[name, rate] = self._open(name, rate)
        try:
            await lease.acquire(owner.name, _WAIT_SECONDS if lease.is_live else _FIRST_LEASE_SECONDS)
        except AgentBusy:
            if lease.is_live:
                _refuse(owner, quota, rate, max(1.0, lease.seconds_until_token()))
            return None
        return lease

    def _open(self, name: str, rate: float) -> QuotaLease:
        return QuotaLease(
            self._process_id,
            Limits(rate=rate, burst=max(_MIN_BURST, rate * _BURST_SECONDS)),
            lease_requester(self._client, self._task_queue, name),
            join_seconds=0,
        )

    async def aclose(self) -> None:
        """Gives the leases back."""
        await asyncio.gather(*(lease.aclose(gives_back=True) for lease in self._leases.values()))


def _refuse(owner: QuotaOwner, quota: QuotaName, rate: float, retry_after: float) -> NoReturn:
    limits = {window: round(rate * window) for window in _WINDOWS}
    exact = (window for window, limit in limits.items() if limit >= 1 and math.isclose(rate * window, limit))
    window = next(exact, _WINDOWS[-1])
    limit = limits[window]
    counted = "requests" if quota is QuotaName.REQUESTS else "events and their reactions"
    raise QuotaExceededError(
        owner,
        quota,
        limit,
        f"The {owner.kind}'s rate of {counted} is {format_rate(rate)}. Send the request again after Retry-After.",
        retry_after=math.ceil(retry_after),
        window=window,
    )
