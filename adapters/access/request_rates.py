"""Limits the rate of requests of tenants and keys, over all processes of the API together.

Each rate is a lease of the workflow that divides agents' limits between processes
(`sevenfold.adapters.agents.admission.quota_lease`), so most requests need no call to Temporal.
"""

import asyncio
import math
import secrets
import socket
from dataclasses import dataclass

from cachetools import LRUCache
from temporalio.client import Client

from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.agents.admission.admission import lease_requester
from sevenfold.adapters.agents.admission.quota_lease import QuotaLease
from sevenfold.contracts.access import Principal
from sevenfold.contracts.errors import AgentBusy
from sevenfold.contracts.limits import Limits

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


class RateExceededError(Exception):
    """The rate is used up. `policy` is `tenant` or `key`; the quota is `quota` requests per `window` seconds."""

    def __init__(self, policy: str, rate: float, retry_after: float) -> None:
        super().__init__(f"{policy}: {rate:g} requests per second")
        self.policy = policy
        self.window = next((window for window in _WINDOWS if rate * window >= 1), _WINDOWS[-1])
        self.quota = round(rate * self.window)
        self.retry_after = math.ceil(retry_after)


@dataclass(frozen=True)
class _Quota:
    policy: str
    name: str
    rate: float


class RequestRates:
    """The leases of this process.

    While no lease can be had, because no worker answers, requests are admitted: a gateway that accepts jobs without a
    worker must not refuse them for a limit that nobody can read. What the workers' absence lets through is bounded by
    nothing but the clients.
    """

    def __init__(self, client: Client, task_queue: str, directory: AccessDirectory) -> None:
        self._client = client
        self._task_queue = task_queue
        self._directory = directory
        self._process_id = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._leases: LRUCache[_Quota, QuotaLease] = LRUCache(_MAX_LEASES)

    async def admit(self, principal: Principal) -> None:
        """Counts a request. Raises RateExceededError if its tenant or key has used up its rate."""
        snapshot = self._directory.latest
        tenant = snapshot.find_tenant(principal.tenant)
        if tenant is not None and tenant.rate is not None:
            await self._admit(_Quota("tenant", tenant.name, tenant.rate))
        key = snapshot.find_key(principal.key_id) if principal.key_id else None
        if key is not None and key.rate is not None:
            await self._admit(_Quota("key", key.id, key.rate))

    async def _admit(self, quota: _Quota) -> None:
        lease = self._leases.get(quota)
        if lease is None:
            lease = self._leases[quota] = self._open(quota)
        try:
            await lease.acquire(quota.name, _WAIT_SECONDS if lease.is_live else _FIRST_LEASE_SECONDS)
        except AgentBusy as refusal:
            if lease.is_live:
                raise RateExceededError(quota.policy, quota.rate, refusal.retry_after or 1.0) from None
        else:
            lease.release(0.0)

    def _open(self, quota: _Quota) -> QuotaLease:
        name = f"{quota.policy}/{quota.name}"
        return QuotaLease(
            self._process_id,
            Limits(rate=quota.rate),
            lease_requester(self._client, self._task_queue, name),
            burst_seconds=_BURST_SECONDS,
            min_burst=_MIN_BURST,
        )

    async def aclose(self) -> None:
        """Stops renewing; the leases expire."""
        await asyncio.gather(*(lease.aclose() for lease in self._leases.values()))
