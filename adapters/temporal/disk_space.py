"""Detects a full disk before the first write is lost."""

import shutil
import time
from pathlib import Path

# Temporal's database and its log need space: below this, nothing new is accepted.
_MARGIN_BYTES = 32_000_000
_TTL_SECONDS = 1.0


class DiskSpace:
    """Free space of the data directory's disk; `directory` is None for a process that stores nothing locally."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._checked_at = -_TTL_SECONDS
        self._free = _MARGIN_BYTES

    @property
    def is_low(self) -> bool:
        """Whether less than 32 MB are free, at most a second old."""
        now = time.monotonic()
        if self._directory is not None and now - self._checked_at >= _TTL_SECONDS:
            self._checked_at = now
            try:
                self._free = shutil.disk_usage(self._directory).free
            except OSError:
                self._free = _MARGIN_BYTES  # The directory does not exist yet, or is not accessible.
        return self._free < _MARGIN_BYTES

    @property
    def reason(self) -> str:
        """The reason, for operators."""
        return (
            f"{self._free // 1_000_000} MB are free on the disk of {self._directory}; at least "
            f"{_MARGIN_BYTES // 1_000_000} MB are needed. Free some space: waiting work then continues."
        )
