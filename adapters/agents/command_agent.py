"""The kind `command`: a program. It gets the request as JSON on standard input, and answers on standard output: one
JSON value, or one event of `remote.event_protocol` per line.
"""

import asyncio
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from sevenfold.adapters.agents.remote.error_mapping import BadAnswerError, LargeAnswerError, to_agent_error
from sevenfold.adapters.agents.remote.event_frames import parse_json_lines
from sevenfold.adapters.agents.remote.event_protocol import parse_event
from sevenfold.adapters.agents.remote.upstream import parse_value
from sevenfold.adapters.agents.replies import as_reply
from sevenfold.adapters.processes import supervise
from sevenfold.adapters.processes.child_processes import (
    close_pipes,
    inherited_environment,
    signal_name,
    wait_for_exit,
)
from sevenfold.contracts.agents.errors import AgentError, AgentFailed, AgentRejected, AgentUnavailable
from sevenfold.contracts.agents.interface import AgentContext, AgentEvent, AgentRequest, Reply

_MAX_OUTPUT_BYTES = 20_000_000
_PIECE_BYTES = 65_536
_ERROR_LINES = 20
_TERMINATE_SECONDS = 2.0

# How long output is read after the program's end, if something else holds it open.
_LEFT_OPEN_SECONDS = 0.5

# The exit codes of sysexits.h that say what is at fault; all others are failed attempts.
_REJECTING, _TEMPORARY = (64, 65), 75


class ProgramError(Exception):
    """What the program wrote to its standard error, for operators."""


class CommandAgent:
    """Runs one program per call, without a shell. `directory` is where it runs, `environment` is added to ours."""

    def __init__(self, command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> None:
        self._command = command
        self._directory = directory
        self._environment = environment
        self._ending: set[asyncio.Task[None]] = set()

    async def run(self, request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
        """Runs the program until it ends. A cancelled call ends it, with all processes of its group."""
        process = await self._start()
        ended = asyncio.create_task(wait_for_exit(process))
        feeding = asyncio.create_task(_feed(process, to_json(request.model_dump(mode="json", by_alias=True))))
        errors: deque[bytes] = deque(maxlen=_ERROR_LINES)
        listening = asyncio.create_task(_keep_last_lines(process, ended, errors))
        reply: Reply | None = None
        try:
            async for event in _read_events(process, ended):
                if isinstance(event, Reply):
                    reply = reply or event
                elif reply is None:
                    yield event
            code = await asyncio.shield(ended)
            await listening
            _check_exit(code, b"".join(errors))
        except (BadAnswerError, LargeAnswerError) as error:
            raise to_agent_error(error) from ProgramError(b"".join(errors).decode(errors="replace"))
        finally:
            feeding.cancel()
            listening.cancel()
            self._end(process, ended)
        # After its end, because its exit code counts, and the consumer stops at the reply.
        if reply is not None:
            yield reply

    def _end(self, process: asyncio.subprocess.Process, ended: "asyncio.Future[int]") -> None:
        """Ends the program beside the call: a call may be cancelled twice, by its deadline and by Temporal."""
        task = asyncio.create_task(_end(process, ended))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def aclose(self) -> None:
        """Returns when all programs have ended."""
        await asyncio.gather(*self._ending)

    async def _start(self) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *supervise.launcher(),
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=self._directory,
                env={**inherited_environment(), **self._environment},
                start_new_session=True,
            )
        except OSError as error:
            raise AgentUnavailable("The program could not be started.") from error


async def _feed(process: asyncio.subprocess.Process, request: bytes) -> None:
    assert process.stdin is not None  # noqa: S101  (it is a pipe)
    with suppress(ConnectionError):  # The program need not read it.
        process.stdin.write(request + b"\n")
        await process.stdin.drain()
    process.stdin.close()


async def _read_pipe(pipe: asyncio.StreamReader | None, ended: "asyncio.Future[int]") -> AsyncIterator[bytes]:
    """Yields what the program writes. What it has started may hold the pipe open after its end."""
    assert pipe is not None  # noqa: S101  (it is a pipe)
    while True:
        reading = asyncio.ensure_future(pipe.read(_PIECE_BYTES))
        try:
            both: set[asyncio.Future[Any]] = {reading, ended}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                await asyncio.wait({reading}, timeout=_LEFT_OPEN_SECONDS)
        finally:
            if not reading.done():
                reading.cancel()
        if reading.cancelled() or not reading.done() or not (piece := reading.result()):
            return
        yield piece


async def _keep_last_lines(
    process: asyncio.subprocess.Process, ended: "asyncio.Future[int]", lines: deque[bytes]
) -> None:
    async for piece in _read_pipe(process.stderr, ended):
        lines.extend(piece[-_PIECE_BYTES // 16 :].splitlines(keepends=True))


async def _read_output(process: asyncio.subprocess.Process, ended: "asyncio.Future[int]") -> AsyncIterator[bytes]:
    size = 0
    async for piece in _read_pipe(process.stdout, ended):
        size += len(piece)
        if size > _MAX_OUTPUT_BYTES:
            raise LargeAnswerError(_MAX_OUTPUT_BYTES)
        yield piece


async def _read_events(
    process: asyncio.subprocess.Process, ended: "asyncio.Future[int]"
) -> AsyncIterator[AgentEvent]:
    """Yields events as they come. Output without events is one JSON value, on whatever number of lines: the reply.

    Lines before the first event that are objects of another kind are skipped then.
    """
    value: list[str] = []  # the lines so far, until there is an event
    has_events, are_objects = False, True
    async for line in parse_json_lines(_read_output(process, ended), _MAX_OUTPUT_BYTES):
        event, is_object = None, False
        if has_events:
            event = parse_event(parse_value(line))
        elif are_objects:
            event, is_object = _parse_first(line)
        if event is not None:
            has_events = True
            value.clear()
            yield event
        elif not has_events:
            are_objects = are_objects and is_object
            value.append(line)
    if value:
        yield as_reply(parse_value(value[0] if len(value) == 1 else "\n".join(value)))


def _parse_first(line: str) -> tuple[AgentEvent | None, bool]:
    """Returns the event of a line, if it is one, and whether it is an object. Raises BadAnswerError for a malformed
    event.
    """
    try:
        value = parse_value(line)
    except BadAnswerError:
        return None, False
    return (parse_event(value), True) if isinstance(value, dict) else (None, False)


def _check_exit(code: int, errors: bytes) -> None:
    if code == 0:
        return
    cause = ProgramError(errors.decode(errors="replace")[-4_000:])
    raise _error_of(code) from cause


def _error_of(code: int) -> AgentError:
    if code in _REJECTING:
        return AgentRejected(f"The program exited with {code}: it does not take this request.")
    if code == _TEMPORARY:
        return AgentUnavailable(f"The program exited with {code}: it may take the request later.")
    if code == supervise.NOT_STARTED:
        return AgentUnavailable("The program could not be started.")
    if code < 0:
        return AgentFailed(f"The program was ended by {signal_name(-code)}.", is_outage=False)
    return AgentFailed(f"The program exited with {code}.", is_outage=False)


async def _end(process: asyncio.subprocess.Process, ended: "asyncio.Future[int]") -> None:
    """Ends the program's whole group: first politely."""
    for number, seconds in ((signal.SIGTERM, _TERMINATE_SECONDS), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        if not ended.done():
            await asyncio.wait({ended}, timeout=seconds)
    close_pipes(process)
