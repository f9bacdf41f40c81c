"""How often calls have failed lately."""

import time
from collections import deque

# So many calls are enough to know.
_MAX_CALLS = 1_000


class FailureWindow:
    """The calls of the last `seconds`, in this process."""

    def __init__(self, seconds: float, minimum_calls: int, failure_rate: float) -> None:
        self._seconds = seconds
        self._minimum = minimum_calls
        self._rate = failure_rate
        self._calls: deque[tuple[float, bool]] = deque(maxlen=max(_MAX_CALLS, minimum_calls))

    def record(self, *, failed: bool) -> bool:
        """Counts a call. Whether too many have failed: only a failure tells so."""
        now = time.monotonic()
        self._calls.append((now, failed))
        while now - self._calls[0][0] > self._seconds:
            self._calls.popleft()
        if not failed or len(self._calls) < self._minimum:
            return False
        failures = sum(failed for _, failed in self._calls)
        return failures >= self._rate * len(self._calls)

    def clear(self) -> None:
        """Forgets them all: the agent begins anew."""
        self._calls.clear()
