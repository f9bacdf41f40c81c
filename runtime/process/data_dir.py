"""Locks the data directory for one instance at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sevenfold.runtime.startup import StartupError


def _check_private(directory: Path) -> None:
    """Raises StartupError for a directory that other users may read: it holds prompts, answers and a key."""
    mode = directory.stat().st_mode & 0o777
    if mode & 0o077:
        raise StartupError(
            f"Other users can read SEVENFOLD_DATA_DIR={directory} (mode {mode:o}), which holds prompts and answers. "
            f"Run: chmod 700 {directory}"
        )


@contextmanager
def lock_data_dir(directory: Path) -> Iterator[None]:
    """Creates the directory (owner only) and holds its lock, because two servers on one database would corrupt it.

    The lock is the kernel's (flock): it is released when its holder ends, even by kill -9. Raises StartupError.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(directory)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartupError(f"SEVENFOLD_DATA_DIR={directory} cannot be used: {error.strerror}.") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            raise StartupError(
                f"The database in {directory} is in use by another Sevenfold (process {holder}). Stop that process, "
                "or set SEVENFOLD_DATA_DIR to another directory."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
