"""Child processes of agents: what they inherit, and how they end."""

import asyncio
import os
import signal

_POLL_SECONDS = 0.01

# The settings of Sevenfold and Temporal, which include secrets.
_SETTINGS = ("SEVENFOLD_", "TEMPORAL_")


def inherited_environment() -> dict[str, str]:
    """Returns this process's environment without its own settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}


async def wait_for_exit(process: asyncio.subprocess.Process) -> int:
    """Returns the exit code. asyncio's own `wait` also waits until nothing holds the pipes open."""
    while process.returncode is None:  # noqa: ASYNC110  (there is no event for it)
        await asyncio.sleep(_POLL_SECONDS)
    return process.returncode


def close_pipes(process: asyncio.subprocess.Process) -> None:
    """Closes what is left of a process that has ended: another one may hold its pipes open."""
    process._transport.close()  # type: ignore[attr-defined]  # asyncio has no public way


def signal_name(number: int) -> str:
    """Returns a signal's name; real-time signals have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
