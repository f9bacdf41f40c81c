"""Room to write: a full disk is noticed before the first write is lost."""

import shutil
import time
from pathlib import Path

# Temporal's database and its log need some: below this, nothing new is accepted.
_MARGIN_BYTES = 32_000_000
_TTL_SECONDS = 1.0


class DiskSpace:
    """The file system of the data directory; None for a process that keeps nothing on a disk of its own."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._checked_at = -_TTL_SECONDS
        self._free = _MARGIN_BYTES

    @property
    def is_low(self) -> bool:
        """Whether less is left than the margin, as of a second ago at most."""
        now = time.monotonic()
        if self._directory is not None and now - self._checked_at >= _TTL_SECONDS:
            self._checked_at = now
            try:
                self._free = shutil.disk_usage(self._directory).free
            except OSError:
                self._free = _MARGIN_BYTES  # it is not there yet, or not ours to look at
        return self._free < _MARGIN_BYTES

    @property
    def reason(self) -> str:
        """What is wrong, for operators."""
        return (
            f"{self._free // 1_000_000} MB are left on the disk of {self._directory}; at least "
            f"{_MARGIN_BYTES // 1_000_000} MB are needed. Make room: what waits goes on by itself."
        )
