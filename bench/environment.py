"""What the peers need beside the project: an environment of their own, and a Redis server."""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

from bench.processes import REPOSITORY

LOCK = REPOSITORY / "bench" / "requirements.lock"
PEERS = REPOSITORY / ".venv-bench"


async def peers_bin() -> Path:
    """Return the folder of the peers' commands; install them first when they are missing or out of date.

    Raises `RuntimeError` if the installation fails. Celery and DBOS stay out of `.venv`, so that the product
    cannot come to depend on them by accident.
    """
    folder = PEERS / "bin"
    stamp = PEERS / ".installed"
    if not stamp.exists() or stamp.read_bytes() != LOCK.read_bytes():
        await _run([sys.executable, "-m", "venv", PEERS])
        await _run([folder / "python", "-m", "pip", "install", "--quiet", "--require-hashes", "-r", LOCK])
        stamp.write_bytes(LOCK.read_bytes())
    return folder


def redis_server() -> Path:
    """Return the Redis server's path; raise `RuntimeError` where it is not installed."""
    found = shutil.which("redis-server")
    if found is None:
        raise RuntimeError("redis-server missing (apt install redis-server)")
    return Path(found)


def peers_versions() -> dict[str, str]:
    """Return the versions that were installed for the peers, by package."""
    pins = (line.split()[0].partition("==") for line in LOCK.read_text().splitlines() if "==" in line)
    return {name: version for name, _, version in pins if name in {"celery", "dbos", "redis"}}


async def _run(argv: list[str | Path]) -> None:
    done = await asyncio.to_thread(
        subprocess.run, [str(part) for part in argv], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, argv[:4]))} failed: {done.stderr.strip()[-300:]}")
