"""Wraps functions and objects with `run` as agents."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any

from sevenfold.adapters.agents.error_boundary import as_agent_error
from sevenfold.adapters.agents.frameworks import as_framework_agent
from sevenfold.adapters.agents.replies import as_event, as_reply
from sevenfold.contracts.agents.interface import Agent, AgentContext, AgentEvent, AgentRequest

# One thread per running call; the limit is that of a worker's concurrent activities.
_MAX_THREADS = 1_000


def as_agent(target: object) -> Agent:
    """Returns an agent for `target`: an agent of a framework (`frameworks`), or one's own.

    Accepts an object (or a class without constructor arguments) with an async-generator method `run(request,
    context)`, or a callable of `(request)` or `(request, context)`: an async generator function, an async function,
    a generator function, or a plain function. The last two run in a thread of their own, so they do not block other
    calls. A callable returns a str, a dict, a pydantic model, a dataclass or a Reply.

    Raises TypeError that describes the target.
    """
    if (agent := as_framework_agent(target)) is not None:
        return agent
    if inspect.isclass(target):
        target = target()
    run = getattr(target, "run", None)
    if run is not None and inspect.isasyncgenfunction(run):
        return target  # type: ignore[return-value]  # that is what makes it an Agent
    if not callable(target):
        raise TypeError(f"{target!r} is neither callable nor an agent with an async generator `run`")
    return CallableAgent(target)


class CallableAgent:
    """Adapts a callable to the Agent interface."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._accepts_context = _accepts_context(function)
        call = function if inspect.isroutine(function) else type(function).__call__
        self._is_stream = inspect.isasyncgenfunction(call)
        self._is_async = inspect.iscoroutinefunction(call)
        self._threads: Executor = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="agent")

    async def run(self, request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
        """Calls the callable once; yields a stream's events unchanged."""
        arguments = (request, context) if self._accepts_context else (request,)
        if self._is_stream:
            async for event in self._function(*arguments):
                yield as_event(event)
            return
        if self._is_async:
            yield as_reply(await self._function(*arguments))
            return
        answer = await _in_thread(self._threads, self._function, arguments)
        if isinstance(answer, Generator):
            async for event in _iterate(answer):
                yield event
            return
        yield as_reply(await answer if isinstance(answer, Awaitable) else answer)


async def _iterate(events: Generator[Any, Any, Any]) -> AsyncIterator[AgentEvent]:
    """Yields what a plain generator yields. All of its steps run in one thread of its own, as it may expect. What it
    returns is the reply.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="agent")
    try:
        while True:
            event, has_ended = await _in_thread(thread, _step, (events,))
            if not has_ended:
                yield as_event(event)
                continue
            if event is not None:
                yield as_reply(event)
            return
    finally:
        # A cancelled call does not wait for the step under way; then the generator's own cleanup follows.
        thread.submit(_outcome, events.close, ())
        thread.shutdown(wait=False)


def _step(events: Generator[Any, Any, Any]) -> tuple[Any, bool]:
    """Returns the next event, or what the generator returned, and whether it has ended."""
    try:
        return next(events), False
    except StopIteration as end:
        return end.value, True


async def _in_thread(threads: Executor, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    loop = asyncio.get_running_loop()
    answer, error = await loop.run_in_executor(threads, partial(_outcome, function, arguments))
    if error is not None:
        raise (failed := as_agent_error(error)) from failed.__cause__
    return answer


def _outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
    """Returns the function's result or its exception. A future cannot carry every exception: with `StopIteration` it
    would never complete.
    """
    try:
        return function(*arguments), None
    except BaseException as error:
        return None, error


def _accepts_context(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    if len(required) > 2 or not (positional or any(p.kind is p.VAR_POSITIONAL for p in parameters)):
        raise TypeError(f"{function!r} must take (request) or (request, context)")
    return len(positional) >= 2
