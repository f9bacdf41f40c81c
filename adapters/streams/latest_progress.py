"""An agent's progress, as often as readers need it."""

import time

# An agent may report its progress as often as it likes; readers get the latest, this often.
_PROGRESS_SECONDS = 0.25


class LatestProgress:
    """The newest progress that is not published yet."""

    def __init__(self) -> None:
        self._pending: tuple[float, str] | None = None
        self._published_at = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the last one was published long enough ago."""
        return time.monotonic() - self._published_at >= _PROGRESS_SECONDS

    def set(self, percent: float, note: str) -> None:
        """Replaces what is not published yet."""
        self._pending = percent, note

    def take(self) -> tuple[float, str] | None:
        """Returns what is to be published now, if there is anything."""
        pending, self._pending = self._pending, None
        if pending is not None:
            self._published_at = time.monotonic()
        return pending
