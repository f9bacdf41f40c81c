"""A file system that can be filled without harm to anybody else."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SIZE = "256m"


@contextmanager
def small_disk(work: Path) -> Iterator[tuple[Path | None, str]]:
    """Mount one in memory while the block runs. Where that is not permitted: None, and why."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    directory = work / "small-disk"
    directory.mkdir()
    if mount is None or umount is None:
        yield None, "not possible here: there is no mount"
        return
    argv = [mount, "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(directory)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        yield None, f"not possible here: {done.stderr.strip()[:100]}"
        return
    try:
        yield directory, ""
    finally:
        subprocess.run([umount, "--lazy", str(directory)], capture_output=True, check=False)
