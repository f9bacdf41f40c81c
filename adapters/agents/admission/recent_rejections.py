"""Counts callers who were rejected a short while ago: they will return."""

import time
from collections import Counter, deque

_WINDOW_SECONDS = 10.0


class RecentRejections:
    """The rejections of the last 10 s, by tenant."""

    def __init__(self) -> None:
        self._found: deque[tuple[float, str]] = deque()

    def record(self, tenant: str) -> None:
        """Counts a rejection."""
        self._found.append((time.monotonic(), tenant))

    def count(self) -> Counter[str]:
        """Returns the number of rejections by tenant."""
        now = time.monotonic()
        while self._found and now - self._found[0][0] > _WINDOW_SECONDS:
            self._found.popleft()
        return Counter(tenant for _, tenant in self._found)
