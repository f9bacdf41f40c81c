"""Error boundary around agent code: converts every exception of an agent to an `AgentError`.

Python agents share the worker's process and event loop. A `SystemExit` that reaches an asyncio Task ends the loop, a
`CancelledError` without a request looks like a cancellation of the run, and an exception whose text or chain raises
breaks the failure report. So only this module calls agent code.
"""

import asyncio
import math
import re
import traceback
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from itertools import dropwhile
from types import TracebackType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from sevenfold.adapters.agents.places import find_error_place, is_ours
from sevenfold.contracts.agents.errors import AgentBug, AgentError, AgentFailed, ErrorCode
from sevenfold.contracts.agents.interface import Usage

T = TypeVar("T")

# How much of an exception is kept for operators: characters of its text, exceptions of its chain, traceback frames.
_MAX_TEXT = 4_000
_MAX_CHAIN = 5
_MAX_FRAMES = 30

# Limits of an agent's own error: characters of the detail that clients get, and seconds of `retry_after`.
_MAX_DETAIL = 2_000
_MAX_RETRY_AFTER = 86_400.0

# What mostly is a mistake in the agent's code.
_BUGS = (TypeError, NameError, AttributeError, KeyError, ImportError, AssertionError, SyntaxError)

# Packages whose errors are those of a connection or of a server.
_CLIENTS = frozenset(
    {"aiohttp", "anthropic", "botocore", "google", "grpc", "httpcore", "httpx", "openai", "requests", "urllib3"}
)

_MAX_TRACEBACK = 8_000

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_RAISED = "The agent raised "

# The agent whose code runs, or empty: the task factory wraps the tasks that agents create.
_agent: ContextVar[str] = ContextVar("agent", default="")
_agents_of_tasks: "WeakKeyDictionary[asyncio.Task[Any], str]" = WeakKeyDictionary()


def enter_agent_code(agent: str) -> None:
    """Marks the current task, and all tasks that it creates, as code of this agent."""
    _agent.set(agent)
    if (task := asyncio.current_task()) is not None:
        _agents_of_tasks[task] = agent


def find_agent(task: "asyncio.Task[Any] | None") -> str:
    """Returns the agent whose code the task runs; empty if it is none. May be called from another thread."""
    return _agents_of_tasks.get(task, "") if task is not None else ""


def as_agent_error(error: BaseException) -> AgentError:
    """Converts an exception to the AgentError of one failed attempt, with a cause that operators can read in
    Temporal.

    An `AgentError` keeps its code; anything else becomes `AgentBug` or `AgentFailed`, which show clients only the
    exception's type.
    """
    if isinstance(error, AgentError):
        clean = _sanitize(error)
    else:
        kind = AgentBug if isinstance(error, _BUGS) else AgentFailed
        clean = kind(f"{_RAISED}{type(error).__name__[:100]}.", is_outage=_is_outage(error))
    clean.__cause__ = _copy_exception(error)
    return clean


def _is_outage(error: BaseException) -> bool:
    """Whether something else than the agent's code is at fault, as far as its type shows."""
    return isinstance(error, OSError | TimeoutError) or type(error).__module__.partition(".")[0] in _CLIENTS


def is_converted(error: BaseException) -> bool:
    """Whether the exception is the `AgentFailed` or `AgentBug` that stands for another one, or a copy of it."""
    return type(error).__name__ in (AgentFailed.__name__, AgentBug.__name__) and _text(error).startswith(_RAISED)


def explain_bug(bug: AgentFailed) -> AgentBug:
    """Returns the error with what its author needs: place and message in the detail, and the traceback. That of
    another process is the message of the cause.
    """
    origin: BaseException = bug
    if not is_converted(bug):
        return AgentBug(bug.detail, traceback=_text(bug.__cause__)[-_MAX_TRACEBACK:] if bug.__cause__ else None)
    while origin.__cause__ is not None and is_converted(origin):
        origin = origin.__cause__
    place = find_error_place(origin)
    detail = f"{_RAISED}{type(origin).__name__}{f' at {place}' if place else ''}: {_text(origin)}"
    lines = traceback.format_exception(origin)
    explained = AgentBug(detail[:_MAX_DETAIL], traceback="".join(lines)[-_MAX_TRACEBACK:], usage=bug.usage)
    explained.__cause__ = bug.__cause__
    return explained


def _sanitize(error: AgentError) -> AgentError:
    """Returns the error with fields of the right types: agents may pass any value or override `__init__`."""
    code = error.code if isinstance(error.code, ErrorCode) else ErrorCode.AGENT_FAILED
    kinds: tuple[type[AgentError], ...] = (*AgentError.__subclasses__(), AgentBug)
    kind = next((one for one in kinds if one.code is code), AgentFailed)
    detail, pointer = getattr(error, "detail", None), getattr(error, "pointer", None)
    usage = getattr(error, "usage", None)
    clean = kind(
        _to_encodable(detail if isinstance(detail, str) else _text(error))[:_MAX_DETAIL],
        retry_after=_check_retry_after(getattr(error, "retry_after", None)),
        pointer=_to_encodable(pointer)[:_MAX_DETAIL] if isinstance(pointer, str) else None,
        usage=_check_usage(usage),
    )
    if isinstance(clean, AgentFailed):
        clean.is_outage = getattr(error, "is_outage", True) is not False
    return clean


def _check_usage(usage: object) -> Usage | None:
    try:
        return Usage.model_validate(dict(usage)) if isinstance(usage, Usage) else None
    except ValueError:
        return None


def _check_retry_after(seconds: object) -> float | None:
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and math.isfinite(seconds):
        return min(_MAX_RETRY_AFTER, max(0.0, float(seconds)))
    return None


def _copy_exception(error: BaseException, length: int = _MAX_CHAIN) -> Exception:
    """Copies the exception and its chain so that Temporal's failure converter can always encode it."""
    kind = type(error)
    copy: Exception = type(kind.__name__[:100], (Exception,), {"__module__": kind.__module__})(_text(error))
    copy.__traceback__ = _last_frames(error.__traceback__)
    copy.__suppress_context__ = True
    nested = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if nested is not None and length > 1:
        copy.__cause__ = _copy_exception(nested, length - 1)
    return copy


def _text(error: BaseException) -> str:
    try:
        return _to_encodable(str(error))[:_MAX_TEXT]
    except BaseException:  # An exception's `__str__` is agent code too.
        return "(the text of this exception cannot be read)"


def _to_encodable(text: str) -> str:
    """Returns the text as UTF-8 can hold it, without what steers a terminal."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text.encode("utf-8", "replace").decode())


def _last_frames(first: TracebackType | None) -> TracebackType | None:
    """Returns the traceback without the frames by which we called the agent, and without the first of very many."""
    frames: list[TracebackType] = []
    while first is not None:
        frames.append(first)
        first = first.tb_next
    theirs = list(dropwhile(lambda frame: is_ours(frame.tb_frame.f_code.co_filename), frames)) or frames
    return theirs[-_MAX_FRAMES:][0] if theirs else None


@asynccontextmanager
async def contain_tasks() -> AsyncIterator[None]:
    """While the block runs, tasks that agent code creates cannot end the event loop by `SystemExit`."""
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()

    def create(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> "asyncio.Task[Any]":
        if not (agent := _agent.get()):
            return asyncio.Task(work, loop=loop, **options)
        task = asyncio.Task(_contain(work), loop=loop, **options)
        _agents_of_tasks[task] = agent
        if asyncio.iscoroutine(work):
            # Closes a coroutine that was cancelled before its first step.
            task.add_done_callback(lambda _: work.close())
        return task

    loop.set_task_factory(create)
    try:
        yield
    finally:
        loop.set_task_factory(before)


async def _contain(work: Awaitable[T]) -> T:
    try:
        return await work
    except (SystemExit, KeyboardInterrupt) as error:
        raise (failed := as_agent_error(error)) from failed.__cause__
