"""One child process, which answers one call at a time."""

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from sevenfold import __version__
from sevenfold.adapters.agents.isolated import child
from sevenfold.adapters.processes import die_with_parent
from sevenfold.adapters.processes.child_processes import (
    close_pipes,
    inherited_environment,
    signal_name,
    wait_for_exit,
)
from sevenfold.contracts.agents.interface import AgentContext, AgentRequest

log = structlog.get_logger(__name__)

_MAX_FRAME_BYTES = 20_000_000
_START_SECONDS = 60.0
_CANCEL_SECONDS = 5.0
_MAX_LINE = 1_000


class ProcessEndedError(Exception):
    """The child process has ended during a call. The message states the cause."""


@dataclass(frozen=True)
class ChildTerms:
    """How a child is started: with which Python, for which agent, and where. `memory_mb`: 0 for no limit."""

    name: str
    target: str
    directory: Path
    python: str
    working_directory: Path
    environment: Mapping[str, str]
    memory_mb: int

    def command(self, descriptor: str) -> Sequence[str]:
        """Returns the command line of a child with this descriptor; `-` only loads the agent."""
        options = [descriptor, str(os.getpid()), __version__, str(self.directory), self.target, str(self.memory_mb)]
        return [self.python, child.__file__, *options]

    def variables(self) -> dict[str, str]:
        """Returns the child's environment."""
        return {**inherited_environment(), "PYTHONUNBUFFERED": "1", **self.environment}

    def check(self) -> str:
        """Returns why the agent cannot be loaded, or nothing."""
        try:
            done = subprocess.run(
                self.command("-"),
                cwd=self.working_directory,
                env=self.variables(),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_START_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{self.python} cannot be run: {error}"
        if done.returncode == 0:
            return ""
        return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"it exits with {done.returncode}"


def is_last(frame: Mapping[str, Any]) -> bool:
    """Whether a call has ended with this frame."""
    return "done" in frame or "error" in frame


class AgentProcess:
    """Life cycle: started, ready, then calls one after the other, until `end`."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._outputs: list[asyncio.Task[None]] = []
        self._run_id = ""
        self.started_at = time.monotonic()
        self.calls = 0

    @classmethod
    async def start(cls, terms: ChildTerms) -> "AgentProcess":
        """Returns a process that has loaded the agent. Raises ProcessEndedError."""
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                *die_with_parent.launcher(),
                *terms.command(str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=terms.working_directory,
                env=terms.variables(),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise ProcessEndedError(f"could not be started: {error.strerror}") from error
        finally:
            theirs.close()
        reader, writer = await asyncio.open_connection(sock=ours, limit=_MAX_FRAME_BYTES)
        self = cls(process, reader, writer)
        self._outputs.append(asyncio.create_task(self._log_output(terms.name)))
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._read()
        except BaseException:
            await self.end()
            raise
        return self

    async def call(self, request: AgentRequest, context: AgentContext) -> AsyncIterator[dict[str, Any]]:
        """Yields the frames of one call, up to its last. Raises ProcessEndedError."""
        self.calls += 1
        self._run_id = request.run_id
        described = {
            "request": request.model_dump(mode="json"),
            "deadline": context.deadline.timestamp(),
            "request_id": context.request_id,
            "traceparent": context.traceparent,
            "tenant": context.tenant,
        }
        await self._write({"call": described})
        while True:
            frame = await self._read()
            yield frame
            if is_last(frame):
                return

    async def answer(self, frame: Mapping[str, Any]) -> None:
        """Answers a request of the child. Raises ProcessEndedError."""
        await self._write(frame)

    async def cancel(self) -> bool:
        """Asks the agent to stop; returns whether it has, so that the process can take another call."""
        with suppress(ProcessEndedError, TimeoutError):
            async with asyncio.timeout(_CANCEL_SECONDS):
                await self._write({"cancel": True})
                while not is_last(await self._read()):
                    pass
                return True
        return False

    async def end(self) -> None:
        """Ends the process and all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._writer.close()
        await wait_for_exit(self._process)
        for task in self._outputs:
            with suppress(asyncio.CancelledError, TimeoutError):
                await asyncio.wait_for(task, 1)
        close_pipes(self._process)

    @property
    def is_alive(self) -> bool:
        """Whether it can take a call."""
        return self._process.returncode is None and not self._reader.at_eof()

    async def _write(self, frame: Mapping[str, Any]) -> None:
        data = json.dumps(frame).encode()
        try:
            self._writer.write(struct.pack(">I", len(data)) + data)
            await self._writer.drain()
        except ConnectionError:
            raise await self._ended() from None

    async def _read(self) -> dict[str, Any]:
        try:
            (size,) = struct.unpack(">I", await self._reader.readexactly(4))
            if size > _MAX_FRAME_BYTES:
                raise ProcessEndedError(f"sent more than {_MAX_FRAME_BYTES} bytes at once")
            frame = json.loads(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            raise await self._ended() from None
        return frame if isinstance(frame, dict) else {}

    async def _ended(self) -> ProcessEndedError:
        with suppress(TimeoutError):
            code = await asyncio.wait_for(wait_for_exit(self._process), 2)
            how = signal_name(-code) if code < 0 else f"exit code {code}"
            return ProcessEndedError(f"ended with {how}")
        return ProcessEndedError("broke its connection")

    async def _log_output(self, agent: str) -> None:
        """Logs what the agent prints, line by line."""
        assert self._process.stdout is not None  # noqa: S101  (it is a pipe)
        rest = b""
        while piece := await self._process.stdout.read(65_536):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                text = line.decode(errors="replace").rstrip("\r")[:_MAX_LINE]
                log.info("agent output", agent=agent, run_id=self._run_id, line=text)
            rest = rest[-_MAX_LINE:]
