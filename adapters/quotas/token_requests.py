"""Takes the tokens of a low rate from the workflow that keeps them, one request at a time."""

import asyncio
import time

from sevenfold.adapters.agents.admission.quota_lease import UNANSWERED, RequestLease
from sevenfold.adapters.temporal.cancellation import raise_if_cancelled
from sevenfold.contracts.agents.limits import LeaseRequest, Limits

# Without a worker nobody answers. Requests are admitted then, and only one of them looks again after this long.
_ANSWER_SECONDS, _UNANSWERED_SECONDS = 1.0, 5.0


class TokenRequests:
    """A rate that is too low to be divided: processes would hold shares of it that others need.

    Each request costs an update of the workflow, so there are no more of them than the rate permits, and one for each
    refusal: until the time that the workflow names, this process refuses by itself.
    """

    def __init__(self, process_id: str, limits: Limits, request_lease: RequestLease) -> None:
        self._process_id = process_id
        self._limits = limits
        self._request_lease = request_lease
        self._lock = asyncio.Lock()
        self._refused_until = self._unanswered_until = float("-inf")

    async def take(self, count: float) -> float:
        """Takes tokens. Returns 0, or in how many seconds there is one."""
        async with self._lock:
            now = time.monotonic()
            if now < self._refused_until:
                return self._refused_until - now
            if now < self._unanswered_until:
                return 0.0
            wait = await self._request(wanted=count)
            self._refused_until = time.monotonic() + wait
            return wait

    async def put_back(self, count: float) -> None:
        """Returns tokens of a request that another quota refused."""
        async with self._lock:
            await self._request(tokens=count)

    async def _request(self, *, wanted: float = 0.0, tokens: float = 0.0) -> float:
        request = LeaseRequest(process=self._process_id, limits=self._limits, tokens=tokens, wanted=wanted)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return (await self._request_lease(request)).wait_seconds
        except UNANSWERED:
            raise_if_cancelled()
            self._unanswered_until = time.monotonic() + _UNANSWERED_SECONDS
            return 0.0
