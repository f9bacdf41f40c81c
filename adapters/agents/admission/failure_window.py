"""Failure rate of recent calls."""

import time
from collections import Counter, deque

# Upper bound of the remembered calls.
_MAX_CALLS = 1_000


class FailureWindow:
    """The calls of the last `seconds` seconds in this process. Too many have failed if at least `minimum_calls` calls
    have a failure rate of `failure_rate` (0 to 1) or more.

    If several tenants called, the rate must also hold without the tenant with the most failures: one tenant whose
    requests make the agent fail must not block the agent for the others.
    """

    def __init__(self, seconds: float, minimum_calls: int, failure_rate: float) -> None:
        self._seconds = seconds
        self._minimum = minimum_calls
        self._rate = failure_rate
        self._calls: deque[tuple[float, str, bool]] = deque(maxlen=max(_MAX_CALLS, minimum_calls))

    def record(self, tenant: str, *, failed: bool) -> bool:
        """Counts a tenant's call. Returns whether too many have failed; always False for a call that succeeded."""
        now = time.monotonic()
        self._calls.append((now, tenant, failed))
        while now - self._calls[0][0] > self._seconds:
            self._calls.popleft()
        if not failed or len(self._calls) < self._minimum:
            return False
        calls = Counter(tenant for _, tenant, _ in self._calls)
        failures = Counter(tenant for _, tenant, failed in self._calls if failed)
        if failures.total() < self._rate * len(self._calls):
            return False
        if len(calls) == 1:
            return True
        (worst, most), *_ = failures.most_common(1)
        return failures.total() - most >= self._rate * (len(self._calls) - calls[worst])

    def clear(self) -> None:
        """Forgets all calls, after the circuit opened or closed."""
        self._calls.clear()
