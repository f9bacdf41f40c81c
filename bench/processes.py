"""Child processes of the benchmark: started with a log file, awaited with a limit, ended by their own pid."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
BIN = REPOSITORY / ".venv" / "bin"


class ChildEndedError(RuntimeError):
    """A child process ended although it was to serve."""


class Child:
    """One process that the benchmark started."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        cwd: Path,
    ) -> None:
        """Start `argv` with its output in `log`; `environment` is added to the benchmark's own.

        Settings of Sevenfold and Temporal in the caller's environment stay out: they would measure something else.
        """
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("SEVENFOLD_", "TEMPORAL_"))
        }
        self.log = log
        with log.open("wb") as output:
            # A session of its own: Ctrl-C reaches the benchmark alone, which then stops its children in order.
            self._process = subprocess.Popen(
                [str(part) for part in argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**inherited, **(environment or {})},
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def check(self) -> None:
        """Raise `ChildEndedError` with the end of the log if the process is gone."""
        code = self._process.poll()
        if code is not None:
            tail = " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-3:])
            raise ChildEndedError(f"ended with {code}: {tail or 'no output'}")

    async def wait(self, seconds: float) -> None:
        """Wait for the process to end by itself; raise `ChildEndedError` if it failed."""
        code = await asyncio.to_thread(self._process.wait, seconds)
        if code:
            self.check()

    async def stop(self, timeout_seconds: float = 20) -> None:
        """Ask the process to end; after `timeout_seconds` seconds, kill the session that it leads."""
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            await asyncio.to_thread(self._process.wait, timeout_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            await asyncio.to_thread(self._process.wait)


def family(pid: int, *, with_server: bool = False) -> list[int]:
    """Return a process and its descendants, the Temporal server mostly apart: it is not ours to judge."""
    server = (BIN / "temporal").resolve()
    if not with_server and Path(f"/proc/{pid}/exe").resolve() == server:
        return []
    files = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for file in files for child in file.read_text().split()]
    return [pid, *(each for child in children for each in family(child, with_server=with_server))]


def cpu_seconds(pid: int, *, with_server: bool = False) -> float:
    """Return the processor time that a process and its descendants, the Temporal server mostly apart, have used."""
    # After the name in brackets, which may hold spaces, the 12th and 13th field are user and system time.
    stats = (Path(f"/proc/{each}/stat") for each in family(pid, with_server=with_server))
    times = (stat.read_text().rpartition(")")[2].split()[11:13] for stat in stats)
    return sum(int(user) + int(system) for user, system in times) / os.sysconf("SC_CLK_TCK")


async def until(
    attempt: Callable[[], Awaitable[object]], seconds: float, what: str, child: Child | None = None
) -> None:
    """Repeat `attempt` until it succeeds.

    Raises `TimeoutError` naming `what` and its last error after `seconds`, and `ChildEndedError` as soon as
    `child` is gone.
    """
    last: Exception | None = None
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        if child is not None:
            child.check()
        remaining = deadline - asyncio.get_running_loop().time()
        if remaining <= 0:
            raise TimeoutError(f"{what} was not ready after {seconds:.0f} s (last: {last})")
        try:
            async with asyncio.timeout(remaining):
                await attempt()
        except Exception as error:  # any failure is "not yet" until the time is up
            last = error
            await asyncio.sleep(0.02)
        else:
            return
