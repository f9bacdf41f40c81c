"""Processes that the campaign starts, kills, stops and starts again."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from sevenfold.adapters.processes import die_with_parent


class Part:
    """One process of the stack through all its lives, with one log. It ends with the campaign, however that ends."""

    def __init__(
        self, name: str, argv: Sequence[str | Path], *, environment: Mapping[str, str], work: Path, ready: str = ""
    ) -> None:
        """Start nothing yet. `ready` is the text in its log that means it is up."""
        self.name = name
        self.log = work / f"{name}.log"
        self._argv = [str(part) for part in argv]
        self._ready = ready
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SEVENFOLD_", "TEMPORAL_"))}
        self._environment = {**inherited, **environment}
        self._work = work
        self._process: subprocess.Popen[bytes] | None = None
        self._began_at = 0

    def start(self) -> None:
        """Start it, which must not run."""
        if self.running:
            raise RuntimeError(f"{self.name} runs already")
        with self.log.open("ab") as output:
            self._began_at = output.tell()
            self._process = subprocess.Popen(
                [*die_with_parent.launcher(), *self._argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                cwd=self._work,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process id; None unless it runs."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def exit_code(self) -> int | None:
        """How its last life ended."""
        return self._process.poll() if self._process else None

    @property
    def up(self) -> bool:
        """Whether its log has the text `ready` since the last start."""
        with self.log.open("rb") as log:
            log.seek(self._began_at)
            return self._ready.encode() in log.read()

    def tail(self, lines: int = 3) -> str:
        """The end of its log."""
        return " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-lines:])

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self.running and self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        self.send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(10)

    async def terminate(self, timeout_seconds: float = 40) -> int | None:
        """Ask it to end; return its exit code, or None if it had to be killed after `timeout_seconds` seconds."""
        self.send(signal.SIGTERM)
        if self._process is None:
            return None
        try:
            return await asyncio.to_thread(self._process.wait, timeout_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    async def until_up(self, seconds: float = 60) -> None:
        """Wait for its log to say that it is up."""
        async with asyncio.timeout(seconds):
            while not self.up:
                if not self.running:
                    raise RuntimeError(f"{self.name} ended with {self.exit_code}: {self.tail()}")
                await asyncio.sleep(0.05)
