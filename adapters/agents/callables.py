"""Wraps functions and objects with `run` as agents."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any

from sevenfold.adapters.agents.error_boundary import as_agent_error
from sevenfold.adapters.agents.replies import as_event, as_reply
from sevenfold.contracts.agent import Agent, AgentContext, AgentEvent, AgentRequest

# One thread per running call; the limit is that of a worker's concurrent activities.
_MAX_THREADS = 1_000


def as_agent(target: object) -> Agent:
    """Returns an agent for `target`.

    Accepts an object (or a class without constructor arguments) with an async-generator method `run(request,
    context)`, or a callable of `(request)` or `(request, context)`: an async generator function, an async function,
    or a plain function. A plain function runs in its own thread, so it does not block other calls. A callable returns
    a str, a dict or a Reply.

    Raises TypeError that describes the target.
    """
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
        answer = await self._in_thread(arguments)
        yield as_reply(await answer if isinstance(answer, Awaitable) else answer)

    async def _in_thread(self, arguments: tuple[Any, ...]) -> Any:
        loop = asyncio.get_running_loop()
        answer, error = await loop.run_in_executor(self._threads, partial(_outcome, self._function, arguments))
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
