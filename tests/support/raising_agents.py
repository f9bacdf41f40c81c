"""Agents that raise what a user's code may raise, however odd: `params.raises` names it, for `params.attempts`."""

import asyncio
import sys
from collections.abc import AsyncIterator

from sevenfold.contracts.agents.errors import AgentError
from sevenfold.contracts.agents.interface import AgentContext, AgentEvent, AgentRequest, Delta, Reply
from tests.support.agents import CALLS

SECRET = "secret of the agent"


class Odd(BaseException):
    pass


class UnreadableError(Exception):
    def __str__(self) -> str:
        sys.exit(4)


class OddError(AgentError):
    def __init__(self) -> None:
        self.detail = 3
        self.retry_after = float("nan")
        self.pointer = object()
        self.code = "no code"


def fail(kind: str) -> None:  # noqa: C901  (a list)
    simple = (SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit, Odd, StopIteration)
    for one in (*simple, StopAsyncIteration):
        if one.__name__ == kind:
            raise one(SECRET)
    match kind:
        case "ExceptionGroup":
            raise ExceptionGroup(SECRET, [ValueError(SECRET)])
        case "BaseExceptionGroup":
            raise BaseExceptionGroup(SECRET, [SystemExit(3), ValueError()])
        case "unreadable":
            raise UnreadableError
        case "circular":
            first, second = ValueError(SECRET), KeyError(SECRET)
            first.__cause__, second.__cause__ = second, first
            raise first
        case "long":
            raise ValueError(SECRET * 300_000)
        case "surrogates":
            raise ValueError("\ud800")
        case "bare AgentError":
            raise AgentError("A fault of its own.")
        case "odd AgentError":
            raise OddError
        case "self-cancel":
            if task := _current_task():
                task.cancel()
            else:
                raise Odd


def _current_task() -> "asyncio.Task[object] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _asked_to_fail(request: AgentRequest) -> str | None:
    CALLS[request.run_id] += 1
    items = request.data.get("items")
    if isinstance(items, list) and isinstance(items[0], dict):
        return str(items[0]["raises"]) if items[0]["raises"] else None
    wanted = request.attempt <= int(str(request.params.get("attempts", 1)))
    return str(request.params["raises"]) if wanted and "raises" in request.params else None


async def raiser(request: AgentRequest) -> str:
    if kind := _asked_to_fail(request):
        fail(kind)
        await asyncio.sleep(0)
    return f"attempt {request.attempt}"


async def raising_stream(request: AgentRequest) -> AsyncIterator[AgentEvent]:
    yield Delta(text="")
    if kind := _asked_to_fail(request):
        fail(kind)
        await asyncio.sleep(0)
    yield Reply(response=f"attempt {request.attempt}")


def raising_thread(request: AgentRequest) -> str:
    if kind := _asked_to_fail(request):
        fail(kind)
    return f"attempt {request.attempt}"


async def raising_task(request: AgentRequest) -> str:
    """In a task of its own."""
    return await asyncio.create_task(raiser(request))


async def raising_cleanup(request: AgentRequest) -> AsyncIterator[AgentEvent]:
    CALLS[request.run_id] += 1
    try:
        yield Reply(response="answered")
    finally:
        fail(str(request.params["raises"]))


async def raising_callback(request: AgentRequest) -> str:
    asyncio.get_running_loop().call_soon(sys.exit, 3)
    await asyncio.sleep(0.05)
    return "outlived it"


async def odd_reply(request: AgentRequest) -> Reply:
    items = request.data.get("items")
    match items[0] if isinstance(items, list) else request.params["reply"]:
        case "huge integer":
            return Reply(data={"n": 10**5_000})
        case "deep":
            deep: list[object] = []
            for _ in range(200):
                deep = [deep]
            return Reply.model_construct(response="", data={"deep": deep}, confidence=None, usage=None)
        case "circular":
            circular: list[object] = []
            circular.append(circular)
            return Reply.model_construct(response="", data={"list": circular}, confidence=None, usage=None)
        case "object":
            return Reply.model_construct(response="", data={"object": object()}, confidence=None, usage=None)
        case "many":
            return Reply(data={"list": [0] * 300_000})
        case "surrogate":
            return Reply(response="a\ud800")
        case "keys":
            return Reply.model_construct(response="", data={(1, 2): object()}, confidence=None, usage=None)
    return Reply(response="fine")


class OddEvents:
    """An agent object whose `run` yields what callables may yield."""

    async def run(self, request: AgentRequest, context: AgentContext) -> AsyncIterator[object]:
        yield "a "
        yield "b"
        yield {"response": ""}


odd_events = OddEvents
