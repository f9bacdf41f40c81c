"""How child processes end."""

import asyncio
import signal

_POLL_SECONDS = 0.01


async def wait_for_exit(process: asyncio.subprocess.Process) -> int:
    """Returns the exit code. asyncio's own `wait` also waits until nothing holds the pipes open."""
    while process.returncode is None:  # noqa: ASYNC110  (there is no event for it)
        await asyncio.sleep(_POLL_SECONDS)
    return process.returncode


def signal_name(number: int) -> str:
    """Returns a signal's name; real-time signals have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
