"""Callables as agents."""

import asyncio
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import MemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel

from sevenfold.adapters.agents.callables import as_agent
from sevenfold.contracts.agents.errors import AgentBug, AgentRejected
from sevenfold.contracts.agents.interface import AgentContext, AgentEvent, AgentRequest, Delta, Progress, Reply

REQUEST = AgentRequest(run_id="qry_x", task="query", query="hello")


async def events(target: object) -> list[AgentEvent]:
    context = AgentContext(deadline=datetime.now(UTC) + timedelta(seconds=60))
    return [event async for event in as_agent(target).run(REQUEST, context)]


async def test_callable_may_return_text_reply_or_object() -> None:
    assert await events(lambda request: request.query) == [Reply(response="hello")]
    assert await events(lambda request: Reply(response="r", confidence=0.1)) == [Reply(response="r", confidence=0.1)]
    assert await events(lambda request: {"score": 1}) == [Reply(data={"score": 1})]
    assert await events(lambda request: {"response": "r", "confidence": 1, "more": [2]}) == [
        Reply(response="r", confidence=1, data={"more": [2]})
    ]


@pytest.mark.parametrize("answer", [None, 7, {"response": 7}, {"response": "r", "confidence": 2}, {1: 2}, object()])
async def test_other_return_values_of_a_callable_are_rejected(answer: Any) -> None:
    with pytest.raises(AgentRejected):
        await events(lambda request: answer)


async def test_coroutines_generators_objects_and_classes_are_callables() -> None:
    async def coroutine(request: AgentRequest) -> str:
        return "coroutine"

    async def with_context(request: AgentRequest, context: AgentContext) -> str:
        return f"{context.remaining_seconds() > 30}"

    async def stream(request: AgentRequest) -> AsyncIterator[Any]:
        yield "a"
        yield Delta(text="b")
        yield Progress(percent=50)
        yield Reply(response="ab")

    class Called:
        async def __call__(self, request: AgentRequest) -> str:
            return "called"

    class Whole:
        async def run(self, request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
            yield Reply(response="whole")

    assert await events(coroutine) == [Reply(response="coroutine")]
    assert await events(with_context) == [Reply(response="True")]
    assert await events(stream) == [Delta(text="a"), Delta(text="b"), Progress(percent=50), Reply(response="ab")]
    assert await events(Called()) == [Reply(response="called")]
    assert await events(Whole()) == await events(Whole) == [Reply(response="whole")]


@pytest.mark.parametrize("target", [7, "text", None, lambda: 1, lambda a, b, c: 1, lambda *, keyword: 1])
def test_target_that_is_not_callable_as_an_agent_raises_type_error(target: object) -> None:
    with pytest.raises(TypeError):
        as_agent(target)


async def test_plain_functions_run_concurrently_in_threads() -> None:
    meeting = threading.Barrier(5)

    def meet(request: AgentRequest) -> str:
        meeting.wait(30)  # passes only when five of them run at once
        return threading.current_thread().name

    agent = as_agent(meet)
    context = AgentContext(deadline=datetime.now(UTC))

    async def one() -> str:
        return [event async for event in agent.run(REQUEST, context)][-1].response  # type: ignore[union-attr]

    assert len(set(await asyncio.gather(*(one() for _ in range(5))))) == 5


def generator(request: AgentRequest) -> Iterator[Any]:
    threads = {threading.get_ident()}
    yield Progress(percent=50)
    for word in ("a", Delta(text="b")):
        threads.add(threading.get_ident())
        yield word
    assert len(threads) == 1, "it stays in one thread"
    yield Reply(response="ab")


async def test_plain_generators_stream() -> None:
    def returning(request: AgentRequest) -> Generator[str, None, dict[str, Any]]:
        yield "a"
        return {"score": 1}

    assert await events(generator) == [Progress(percent=50), Delta(text="a"), Delta(text="b"), Reply(response="ab")]
    assert await events(returning) == [Delta(text="a"), Reply(data={"score": 1})]
    assert await events(lambda request: generator(request)) == await events(generator)


async def test_a_plain_generator_blocks_nothing_and_is_closed_when_its_call_ends() -> None:
    closed, go_on = threading.Event(), threading.Event()

    def slow(request: AgentRequest) -> Iterator[str]:
        try:
            yield "a"
            go_on.wait(10)
            yield "b"
        finally:
            closed.set()

    context = AgentContext(deadline=datetime.now(UTC) + timedelta(seconds=60))
    running = as_agent(slow).run(REQUEST, context)
    assert await anext(running) == Delta(text="a")
    waiting = asyncio.ensure_future(anext(running))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not closed.is_set(), "its thread is in it"
    go_on.set()
    assert await asyncio.to_thread(closed.wait, 10)


async def test_an_exception_of_a_plain_generator_is_the_agents() -> None:
    def failing(request: AgentRequest) -> Iterator[str]:
        yield "a"
        raise KeyError("x")

    with pytest.raises(AgentBug, match="KeyError"):
        await events(failing)


class Verdict(BaseModel):
    label: str
    at: datetime | None = None


@dataclass
class Score:
    value: int


async def test_models_and_dataclasses_are_data() -> None:
    at = datetime(2026, 11, 30, tzinfo=UTC)
    assert await events(lambda request: Verdict(label="good", at=at)) == [
        Reply(data={"label": "good", "at": "2026-11-30T00:00:00Z"})
    ]
    assert await events(lambda request: Score(3)) == [Reply(data={"value": 3})]

    @dataclass
    class Answer:
        response: str
        score: Score

    assert await events(lambda request: Answer("r", Score(1))) == [Reply(response="r", data={"score": {"value": 1}})]
    with pytest.raises(AgentRejected):
        await events(lambda request: Score)


async def test_odd_messages_of_a_graph_are_read() -> None:
    def graph(node: Any) -> Any:
        return StateGraph(MessagesState).add_node("n", node).add_edge(START, "n").compile(checkpointer=MemorySaver())

    def parts(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(content=["hello ", {"type": "text", "text": "world"}, {"type": "image"}])]}

    def asking(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(content=str(interrupt("May I?")))]}

    assert (await events(graph(parts)))[-1] == Reply(response="hello world")
    with pytest.raises(AgentRejected, match="waits for a person"):
        await events(graph(asking))
