"""Limits the rates of requests and events of tenants and keys, over all processes together.

The workflow that divides agents' limits between processes (`sevenfold.adapters.agents.admission.quota_lease`) keeps
the tokens of each rate. Processes have shares of a high one; of a low one they take each token there.
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
from sevenfold.adapters.quotas.token_requests import TokenRequests
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

# Lower rates, in requests per second, are not divided between processes.
_MIN_DIVIDED_RATE = 5.0

# Processes renew every 2 s: a process that joins has its part within this time.
_JOIN_SECONDS = 2.5

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
        self._tokens: LRUCache[tuple[str, float], _Tokens] = LRUCache(_MAX_LEASES)

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
        charged: list[_Tokens] = []
        # The key comes before its tenant: what a key sends beyond its own rate takes nothing from the other keys.
        for owner, rate in reversed(rates):
            if rate is None:
                continue
            tokens = self._find(owner, quota, rate)
            wait = await tokens.take(count)
            if wait > 0:
                for other in charged:
                    await other.put_back(count)
                _refuse(owner, quota, rate, wait)
            charged.append(tokens)

    def _find(self, owner: QuotaOwner, quota: QuotaName, rate: float) -> "_Tokens":
        name = f"{owner.kind}/{owner.name}" + ("" if quota is QuotaName.REQUESTS else f"/{quota}")
        found = self._tokens.get((name, rate))
        if found is None:
            found = self._tokens[name, rate] = self._open(name, owner.name, rate)
        return found

    def _open(self, name: str, tenant: str, rate: float) -> "_Tokens":
        limits = Limits(rate=rate, burst=max(_MIN_BURST, rate * _BURST_SECONDS))
        request_lease = lease_requester(self._client, self._task_queue, name)
        # A rate that was changed has another lease, whose share must not be taken for the earlier one's.
        process_id = f"{self._process_id}-{rate:g}"
        if rate < _MIN_DIVIDED_RATE:
            return TokenRequests(process_id, limits, request_lease)
        return _LeasedTokens(QuotaLease(process_id, limits, request_lease, join_seconds=_JOIN_SECONDS), tenant)

    async def aclose(self) -> None:
        """Gives the leases back."""
        leased = [one for one in self._tokens.values() if isinstance(one, _LeasedTokens)]
        await asyncio.gather(*(one.lease.aclose(gives_back=True) for one in leased))


class _LeasedTokens:
    """The tokens of a rate that processes divide: most requests need no call to Temporal."""

    def __init__(self, lease: QuotaLease, owner: str) -> None:
        self.lease = lease
        self._owner = owner

    async def take(self, count: float) -> float:
        """Takes tokens. Returns 0, or in how many seconds there is one. Without a lease there is none to take."""
        lease = self.lease
        try:
            await lease.acquire(self._owner, _WAIT_SECONDS if lease.is_live else _FIRST_LEASE_SECONDS)
        except AgentBusy:
            return max(1.0, lease.seconds_until_token()) if lease.is_live else 0.0
        lease.charge(count - 1)
        lease.release(0.0)
        return 0.0

    async def put_back(self, count: float) -> None:
        """Returns tokens of a request that another quota refused."""
        self.lease.charge(-count)


_Tokens = TokenRequests | _LeasedTokens


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
