"""The kind `command`: a program. It gets the request as JSON on standard input, and answers on standard output: one
JSON value, or one event of `remote.event_protocol` per line.
"""

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic_core import to_json

from sevenfold.adapters import die_with_parent
from sevenfold.adapters.agents.remote.error_mapping import BadAnswerError, LargeAnswerError, to_agent_error
from sevenfold.adapters.agents.remote.event_frames import parse_json_lines
from sevenfold.adapters.agents.remote.event_protocol import parse_event
from sevenfold.adapters.agents.remote.upstream import parse_value
from sevenfold.adapters.agents.replies import as_reply
from sevenfold.contracts.agent import AgentContext, AgentEvent, AgentRequest, Reply
from sevenfold.contracts.errors import AgentError, AgentFailed, AgentRejected, AgentUnavailable

_MAX_OUTPUT_BYTES = 20_000_000
_PIECE_BYTES = 65_536
_ERROR_LINES = 20
_TERMINATE_SECONDS = 2.0

# The exit codes of sysexits.h that say what is at fault; all others are failed attempts.
_REJECTING, _TEMPORARY = (64, 65), 75

# Our own secrets are not the program's business.
_OURS = ("SEVENFOLD_", "TEMPORAL_")


class ProgramError(Exception):
    """What the program wrote to its standard error, for operators."""


class CommandAgent:
    """Runs one program per call, without a shell. `directory` is where it runs, `environment` is added to ours."""

    def __init__(self, command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> None:
        self._command = command
        self._directory = directory
        self._environment = environment

    async def run(self, request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
        """Runs the program until it ends. A cancelled call ends it, with all processes that it started."""
        process = await self._start()
        feeding = asyncio.create_task(_feed(process, to_json(request.model_dump(mode="json", by_alias=True))))
        errors: deque[bytes] = deque(maxlen=_ERROR_LINES)
        listening = asyncio.create_task(_keep_last_lines(process, errors))
        reply: Reply | None = None
        try:
            async for event in _read_events(process):
                if isinstance(event, Reply):
                    reply = reply or event
                elif reply is None:
                    yield event
            await asyncio.gather(feeding, listening)
            _check_exit(await process.wait(), b"".join(errors))
        except (BadAnswerError, LargeAnswerError) as error:
            raise to_agent_error(error) from ProgramError(b"".join(errors).decode(errors="replace"))
        finally:
            feeding.cancel()
            listening.cancel()
            await _end(process)
        # After its end, because its exit code counts, and the consumer stops at the reply.
        if reply is not None:
            yield reply

    async def _start(self) -> asyncio.subprocess.Process:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        # It ends with this process too, whatever ends that.
        wrapper = [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid())]
        try:
            return await asyncio.create_subprocess_exec(
                *wrapper,
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=self._directory,
                env={**inherited, **self._environment},
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


async def _keep_last_lines(process: asyncio.subprocess.Process, lines: deque[bytes]) -> None:
    assert process.stderr is not None  # noqa: S101  (it is a pipe)
    while piece := await process.stderr.read(_PIECE_BYTES):
        lines.extend(piece[-_PIECE_BYTES // 16 :].splitlines(keepends=True))


async def _read_output(process: asyncio.subprocess.Process) -> AsyncIterator[bytes]:
    assert process.stdout is not None  # noqa: S101  (it is a pipe)
    size = 0
    while piece := await process.stdout.read(_PIECE_BYTES):
        size += len(piece)
        if size > _MAX_OUTPUT_BYTES:
            raise LargeAnswerError(_MAX_OUTPUT_BYTES)
        yield piece


async def _read_events(process: asyncio.subprocess.Process) -> AsyncIterator[AgentEvent]:
    """Yields events as they come. Output without events is one JSON value, on whatever number of lines: the reply."""
    value: list[str] | None = []  # the lines so far, until there is an event
    async for line in parse_json_lines(_read_output(process), _MAX_OUTPUT_BYTES):
        if value is None:
            event = parse_event(parse_value(line))
        else:
            event = _parse_first(line) if all(map(_is_object, value)) else None
            value = None if event is not None else [*value, line]
        if event is not None:
            yield event
    if value:
        yield as_reply(parse_value("\n".join(value)))


def _parse_first(line: str) -> AgentEvent | None:
    """Returns the event of a line; None if it is another value, or the beginning of one."""
    try:
        return parse_event(parse_value(line))
    except BadAnswerError:
        return None


def _is_object(line: str) -> bool:
    """Whether the line is an event of a kind that we do not know, rather than a part of a value."""
    try:
        return isinstance(parse_value(line), dict)
    except BadAnswerError:
        return False


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
    if code < 0:
        return AgentFailed(f"The program was ended by {signal.Signals(-code).name}.")
    return AgentFailed(f"The program exited with {code}.")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends the program's whole group: first politely."""
    for number, seconds in ((signal.SIGTERM, _TERMINATE_SECONDS), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        if process.returncode is not None:
            continue  # The program has ended; what it started may run on without the signal.
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), seconds)
