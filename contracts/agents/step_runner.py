"""Executes a step of a durable agent: once per run, unless it was recorded.

The standard library alone: this file is also executed in the child processes of agents, whose environments need not
have Sevenfold (adapters/agents/isolated/child.py).
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FIRST_PAUSE = 0.5
_MAX_PAUSE = 30.0
_DEFAULT_RETRIES = 2
_KEY_PARAMETER = "idempotency_key"

# How the threads are named in which agents run: those that agents start have other names.
_AGENT_THREADS = ("agent", "asyncio")

# Where plain functions run as steps; asyncio's own threads are few, and others need them.
_THREADS = ThreadPoolExecutor(1_000, thread_name_prefix="step")


class StepFailed(Exception):  # noqa: N818
    """A step that failed for good. Every later attempt of the run gets the same. `type_name`: of the exception."""

    def __init__(self, name: str, type_name: str, message: str) -> None:
        super().__init__(f"The step {name} failed with {type_name}: {message}")
        self.name = name
        self.type_name = type_name
        self.message = message


@dataclass(frozen=True)
class StepStart:
    """A step that begins. `is_recorded`: it was executed before, with this result or failure (type and message).
    `number` identifies it within its call; `idempotency_key` is the same in every attempt of the run.
    """

    number: int
    name: str
    key: str
    idempotency_key: str
    is_recorded: bool = False
    result: Any = None
    failure: tuple[str, str] | None = None

    def outcome(self) -> Any:
        """Returns the recorded result. Raises StepFailed."""
        if self.failure is not None:
            raise StepFailed(self.name, *self.failure)
        return self.result


@dataclass(frozen=True)
class StepOptions:
    """`key` identifies the step, by default its name and how often that has occurred. `retries`: further tries of a
    failed one, `timeout`: of a try, in seconds, `retry_on`: the exceptions after which it is tried again. With
    `retries` or `retry_on` a failure is recorded, once it is final; without both it fails the agent's attempt, and
    the next attempt executes the step again.
    """

    key: str | None = None
    retries: int | None = None
    timeout: float | None = None
    retry_on: tuple[type[BaseException], ...] | None = None

    @property
    def records_failures(self) -> bool:
        """Whether a failure may be final."""
        return self.retries is not None or self.retry_on is not None

    def may_retry(self, error: BaseException, tries: int) -> bool:
        """Whether a step that has failed is tried again."""
        allowed = (self.retries or 0) if self.retry_on is None or self.retries is not None else _DEFAULT_RETRIES
        return tries <= allowed and isinstance(error, self.retry_on or Exception)


def pause_before(tries: int) -> float:
    """Seconds before the next try."""
    return min(_MAX_PAUSE, _FIRST_PAUSE * 2.0 ** (tries - 1))


async def run_step(
    call: Any, name: str, function: Callable[..., Any], work: tuple[Any, Any], options: StepOptions
) -> Any:
    """Executes `function(*args, **kwargs)`, a coroutine function or a plain one, which runs in a thread. `call` is a
    `DurableCall`, `work` the arguments.
    """
    start: StepStart = await call.begin_step(name, options.key, is_main=call.is_main_task())
    if start.is_recorded:
        return start.outcome()
    try:
        result = await _execute_with_retries(call, _bind(function, work, start), options)
    except Exception as error:
        await _fail(call, start, error, options)
        raise StepFailed(start.name, type(error).__name__, str(error)) from error
    except BaseException:
        await call.abandon_step(start)
        raise
    return await call.end_step(start, result, None)


async def _execute_with_retries(call: Any, bound: Callable[[], Any], options: StepOptions) -> Any:
    tries = 1
    while True:
        try:
            with _inside(call):
                return await _execute(bound, options.timeout)
        except Exception as error:
            if not options.may_retry(error, tries):
                raise
        await asyncio.sleep(pause_before(tries))
        tries += 1


async def _fail(call: Any, start: StepStart, error: Exception, options: StepOptions) -> None:
    """Records a failure that is final. Raises the error itself if it is not."""
    if not options.records_failures:
        await call.abandon_step(start)
        raise error
    await call.end_step(start, None, (type(error).__name__, str(error)))


async def _execute(bound: Callable[[], Any], timeout: float | None) -> Any:
    if inspect.iscoroutinefunction(bound.func if isinstance(bound, partial) else bound):
        return await asyncio.wait_for(bound(), timeout)
    run = partial(copy_context().run, _contained, bound)
    found = await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(_THREADS, run), timeout)
    return await asyncio.wait_for(found, timeout) if inspect.isawaitable(found) else found


def run_step_in_thread(
    call: Any,
    loop: asyncio.AbstractEventLoop,
    name: str,
    function: Callable[..., Any],
    work: tuple[Any, Any],
    options: StepOptions,
) -> Any:
    """The same for an agent in a thread: the function runs in that thread, what keeps the steps on the event loop."""
    wait = partial(on_loop, loop, "step")
    start: StepStart = wait(call.begin_step(name, options.key, is_main=is_agent_thread()))
    if start.is_recorded:
        return start.outcome()
    try:
        result = _execute_in_thread(call, wait, _bind(function, work, start), options)
    except Exception as error:
        wait(_fail(call, start, error, options))
        raise StepFailed(start.name, type(error).__name__, str(error)) from error
    except BaseException:
        wait(call.abandon_step(start))
        raise
    return wait(call.end_step(start, result, None))


def _execute_in_thread(call: Any, wait: Callable[[Any], Any], bound: Callable[[], Any], options: StepOptions) -> Any:
    tries = 1
    while True:
        try:
            with _inside(call):
                return _contained(bound) if options.timeout is None else _in_time(bound, options.timeout)
        except Exception as error:
            if not options.may_retry(error, tries):
                raise
        wait(asyncio.sleep(pause_before(tries)))
        tries += 1


def on_loop(loop: asyncio.AbstractEventLoop, name: str, coroutine: Any) -> Any:
    """Returns what the coroutine returns on the event loop. Raises RuntimeError on the loop's own thread, which would
    wait for itself.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()
    coroutine.close()
    raise RuntimeError(f"context.{name}_sync is for plain functions: in a coroutine use await context.{name}(...)")


def is_agent_thread() -> bool:
    """Whether the agent's own code runs in this thread, and no thread that it has started."""
    return threading.current_thread().name.startswith(_AGENT_THREADS)


@contextmanager
def _inside(call: Any) -> Iterator[None]:
    """What is executed here is a step, which cannot ask: the call would wait for its end."""
    token = call.in_step.set(True)
    try:
        yield
    finally:
        call.in_step.reset(token)


def _in_time(bound: Callable[[], Any], timeout: float) -> Any:
    """A thread cannot be stopped: one that is late is left to itself."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="step")
    try:
        return pool.submit(copy_context().run, _contained, bound).result(timeout)
    finally:
        pool.shutdown(wait=False)


def _contained(bound: Callable[[], Any]) -> Any:
    try:
        return bound()
    except StopIteration as error:  # A future cannot carry it.
        raise RuntimeError("the step raised StopIteration") from error


def _bind(function: Callable[..., Any], work: tuple[Any, Any], start: StepStart) -> Callable[[], Any]:
    args, kwargs = work
    if _KEY_PARAMETER not in kwargs and _takes_key(function):
        kwargs = {**kwargs, _KEY_PARAMETER: start.idempotency_key}
    return partial(function, *args, **kwargs)


def _takes_key(function: Callable[..., Any]) -> bool:
    try:
        return _KEY_PARAMETER in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
