"""Failure rate of recent calls."""

import time
from collections import deque

# Upper bound of the remembered calls.
_MAX_CALLS = 1_000


class FailureWindow:
    """The calls of the last `seconds` seconds in this process. Too many have failed if at least `minimum_calls` calls
    have a failure rate of `failure_rate` (0 to 1) or more.
    """

    def __init__(self, seconds: float, minimum_calls: int, failure_rate: float) -> None:
        self._seconds = seconds
        self._minimum = minimum_calls
        self._rate = failure_rate
        self._calls: deque[tuple[float, bool]] = deque(maxlen=max(_MAX_CALLS, minimum_calls))

    def record(self, *, failed: bool) -> bool:
        """Counts a call. Returns whether too many have failed; always False for a call that succeeded."""
        now = time.monotonic()
        self._calls.append((now, failed))
        while now - self._calls[0][0] > self._seconds:
            self._calls.popleft()
        if not failed or len(self._calls) < self._minimum:
            return False
        failures = sum(failed for _, failed in self._calls)
        return failures >= self._rate * len(self._calls)

    def clear(self) -> None:
        """Forgets all calls, after the circuit opened or closed."""
        self._calls.clear()
