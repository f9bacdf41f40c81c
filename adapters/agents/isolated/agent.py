"""The kind `python` with `isolation = "process"`."""

import asyncio
import builtins
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from sevenfold.adapters.agents.isolated.durable_requests import DurableRequests
from sevenfold.adapters.agents.isolated.process import AgentProcess, ChildTerms, ProcessEndedError
from sevenfold.adapters.agents.replies import as_reply, as_usage
from sevenfold.contracts.agents.errors import AgentError, AgentFailed, AgentRejected, ErrorCode
from sevenfold.contracts.agents.interface import AgentContext, AgentEvent, AgentRequest, Delta, Progress, Reply, Usage
from sevenfold.contracts.agents.unrecorded import UnrecordedCall

_KINDS: dict[str, type[Delta | Progress | Usage | Reply]] = {
    "delta": Delta,
    "progress": Progress,
    "usage": Usage,
    "reply": Reply,
}
_CODES = {one.code: one for one in AgentError.__subclasses__()}


class RemoteTracebackError(Exception):
    """What happened in the child: its message is the traceback there."""


class IsolatedAgent:
    """Calls an agent in child processes, one call at a time in each. `idle`: how many wait for the next call. A
    process is replaced after `max_calls` calls or `max_age` seconds.
    """

    def __init__(self, terms: ChildTerms, *, idle: int, max_calls: int, max_age: float) -> None:
        self._terms = terms
        self._max_idle = idle
        self._max_calls = max_calls
        self._max_age = max_age
        self._idle: list[AgentProcess] = []
        self._ending: set[asyncio.Task[None]] = set()

    async def run(self, request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
        """Makes one call. A process that ends during it fails this call alone."""
        process = await self._take()
        requests = DurableRequests(process, context.durable or UnrecordedCall())
        is_reusable = False
        try:
            async for frame in process.call(request, context):
                if "event" in frame:
                    yield _to_event(frame["event"])
                    continue
                if "durable" in frame:
                    requests.start(frame["durable"])
                    continue
                is_reusable = True
                if "error" in frame:
                    raise _to_error(frame["error"])
        except ProcessEndedError as error:
            raise AgentFailed(f"The agent's process {error}.", is_outage=False) from error
        except (asyncio.CancelledError, GeneratorExit):
            is_reusable = await _finish_cancelled(process)
            raise
        finally:
            requests.cancel()
            self._give_back(process, is_reusable=is_reusable)

    async def aclose(self) -> None:
        """Ends all processes that wait."""
        processes, self._idle = self._idle, []
        await asyncio.gather(*(process.end() for process in processes), *self._ending, return_exceptions=True)

    async def _take(self) -> AgentProcess:
        while self._idle:
            process = self._idle.pop()
            if process.is_alive and not self._is_worn(process):
                return process
            self._end_soon(process)
        try:
            return await AgentProcess.start(self._terms)
        except (ProcessEndedError, TimeoutError) as error:
            raise AgentFailed(f"The agent's process {str(error) or 'did not start in time'}.") from error

    def _is_worn(self, process: AgentProcess) -> bool:
        return process.calls >= self._max_calls or time.monotonic() - process.started_at > self._max_age

    def _give_back(self, process: AgentProcess, *, is_reusable: bool) -> None:
        if is_reusable and process.is_alive and not self._is_worn(process) and len(self._idle) < self._max_idle:
            self._idle.append(process)
        else:
            self._end_soon(process)

    def _end_soon(self, process: AgentProcess) -> None:
        task = asyncio.create_task(process.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


async def _finish_cancelled(process: AgentProcess) -> bool:
    with suppress(asyncio.CancelledError):
        return await process.cancel()
    return False


def _to_event(event: Mapping[str, Any]) -> AgentEvent:
    kind, value = str(event.get("kind")), event.get("value")
    if kind not in _KINDS:
        return as_reply(value)
    try:
        found = _KINDS[kind].model_validate(value)
    except ValidationError as error:
        where = ", ".join(".".join(map(str, one["loc"])) for one in error.errors())
        raise AgentRejected(f"The agent's {kind} has invalid fields: {where}.") from error
    return as_usage(found) if isinstance(found, Usage) else found


def _to_error(described: Mapping[str, Any]) -> BaseException:
    """Returns the exception that the agent raised, as far as it is one of Python or of Sevenfold."""
    cause = RemoteTracebackError(f"\n{described['traceback']}")
    code = described.get("code")
    if code in _CODES:
        error: BaseException = _CODES[ErrorCode(str(code))](
            str(described.get("detail") or described["text"]),
            retry_after=described.get("retry_after"),
            pointer=described.get("pointer"),
        )
    else:
        text = f"{described['text']} (at {described['place']})" if described["place"] else described["text"]
        error = _python_error(described["bases"], described["type"])(text)
    error.__cause__ = cause
    return error


def _python_error(bases: list[str], name: str) -> type[Exception]:
    """Returns a class of that name below the first base that is one of Python's own."""
    own = (getattr(builtins, base, None) for base in bases)
    # A group is made of more than a text.
    found = (one for one in own if isinstance(one, type) and issubclass(one, Exception))
    base = next((one for one in found if not issubclass(one, ExceptionGroup)), Exception)
    return base if base.__name__ == name else type(name[:100], (base,), {"__module__": "agent"})
