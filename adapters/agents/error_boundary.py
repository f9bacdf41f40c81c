"""Error boundary around agent code: whatever an agent raises becomes one `AgentError`.

Python agents share the worker's process and event loop. A `SystemExit` that reaches an asyncio Task ends the loop, a
`CancelledError` that nobody requested looks like a cancellation of the run, and an exception whose text or chain
cannot be read breaks the report of the failure. So agent code is called through this module only.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TypeVar

from sevenfold.contracts.verdicts import AgentError, AgentFailed, ErrorCode

T = TypeVar("T")

# What of an exception is kept, for operators: characters of its text, exceptions of its chain, frames of a traceback.
_MAX_TEXT = 4_000
_MAX_CHAIN = 5
_MAX_FRAMES = 30

# What of an agent's own error is shown to clients, in characters; and the longest pause that it may ask for.
_MAX_DETAIL = 2_000
_MAX_RETRY_AFTER = 86_400.0

# Set while agent code runs: the task factory contains the tasks that are created meanwhile.
_in_agent_code: ContextVar[bool] = ContextVar("in_agent_code", default=False)


def enter_agent_code() -> None:
    """Marks the current task as one that runs agent code, and so all tasks that it creates."""
    _in_agent_code.set(True)


def as_agent_error(error: BaseException) -> AgentError:
    """The one failed attempt that an exception is, with a cause that operators can read in Temporal.

    An `AgentError` keeps its verdict; anything else is `AgentFailed`, and only the name of its type is for clients.
    """
    if isinstance(error, AgentError):
        clean = _sanitize(error)
    else:
        clean = AgentFailed(f"The agent raised {type(error).__name__[:100]}.")
    clean.__cause__ = _copy_exception(error)
    return clean


def _sanitize(error: AgentError) -> AgentError:
    """The same error with fields of the right types: agents may pass anything, or override `__init__`."""
    code = error.code if isinstance(error.code, ErrorCode) else ErrorCode.AGENT_FAILED
    kind = next((one for one in AgentError.__subclasses__() if one.code is code), AgentFailed)
    detail, pointer = getattr(error, "detail", None), getattr(error, "pointer", None)
    return kind(
        _to_encodable(detail if isinstance(detail, str) else _text(error))[:_MAX_DETAIL],
        retry_after=_check_retry_after(getattr(error, "retry_after", None)),
        pointer=_to_encodable(pointer)[:_MAX_DETAIL] if isinstance(pointer, str) else None,
    )


def _check_retry_after(seconds: object) -> float | None:
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and math.isfinite(seconds):
        return min(_MAX_RETRY_AFTER, max(0.0, float(seconds)))
    return None


def _copy_exception(error: BaseException, length: int = _MAX_CHAIN) -> Exception:
    """A copy of the exception and its chain that Temporal's failure converter can always write down."""
    copy: Exception = type(type(error).__name__[:100], (Exception,), {})(_text(error))
    copy.__traceback__ = _last_frames(error.__traceback__)
    copy.__suppress_context__ = True
    nested = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if nested is not None and length > 1:
        copy.__cause__ = _copy_exception(nested, length - 1)
    return copy


def _text(error: BaseException) -> str:
    try:
        return _to_encodable(str(error))[:_MAX_TEXT]
    except BaseException:  # its own `__str__` is agent code too
        return "(the text of this exception cannot be read)"


def _to_encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _last_frames(traceback: TracebackType | None) -> TracebackType | None:
    frames: list[TracebackType] = []
    while traceback is not None:
        frames.append(traceback)
        traceback = traceback.tb_next
    return frames[-_MAX_FRAMES:][0] if frames else None


@asynccontextmanager
async def contain_tasks() -> AsyncIterator[None]:
    """While the block runs, tasks that agent code creates cannot end the event loop by `SystemExit`."""
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()

    def create(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> "asyncio.Task[Any]":
        if not _in_agent_code.get():
            return asyncio.Task(work, loop=loop, **options)
        task = asyncio.Task(_contain(work), loop=loop, **options)
        if asyncio.iscoroutine(work):
            task.add_done_callback(lambda _: work.close())  # one that was cancelled before it began
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
