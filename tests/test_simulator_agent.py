"""The simulator agent: text, duration and failures as its params request."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sevenfold.adapters.agents.simulator import SimulatorAgent
from sevenfold.contracts.agents.errors import AgentError, AgentRejected, AgentUnavailable
from sevenfold.contracts.agents.interface import AgentContext, AgentEvent, AgentRequest, Delta, Progress, Reply

CONTEXT = AgentContext(deadline=datetime(2100, 1, 1, tzinfo=UTC))


async def events_of(params: dict, *, attempt: int = 1, query: str | None = None) -> list[AgentEvent]:
    request = AgentRequest(run_id="r", task="query", attempt=attempt, query=query, params=params)
    return [event async for event in SimulatorAgent().run(request, CONTEXT)]


async def _drain(events: AsyncIterator[AgentEvent], into: list[AgentEvent]) -> None:
    async for event in events:
        into.append(event)


def joined(events: list[AgentEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


async def test_default_answer_takes_a_second_and_mentions_the_query():
    start = time.perf_counter()
    events = await events_of({}, query="Where is my order?")
    assert 0.95 <= time.perf_counter() - start < 20
    reply = events[-1]
    assert isinstance(reply, Reply)
    assert "Where is my order?" in reply.response
    assert reply.confidence == 1
    assert reply.usage.input_tokens == 4
    assert reply.usage.output_tokens == len(reply.response.split())
    progress = [event for event in events if isinstance(event, Progress)]
    assert [event.percent for event in progress] == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert progress[2].note == "step 3 of 10"


async def test_thousands_of_steps_keep_the_requested_duration():
    took = []
    for _ in range(3):  # the best of three: the machine may be busy
        start = time.perf_counter()
        await events_of({"seconds": 0.5, "steps": 5_000})
        took.append(time.perf_counter() - start)
    assert 0.45 <= min(took) < 2


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60), steps=st.integers(1, 80))
async def test_joined_deltas_are_the_text(text, steps):
    events = await events_of({"seconds": 0, "steps": steps, "text": text})
    assert joined(events) == text == events[-1].response
    assert sum(isinstance(event, Progress) for event in events) == steps
    assert all(event.text for event in events if isinstance(event, Delta))
    percents = [event.percent for event in events if isinstance(event, Progress)]
    assert percents == sorted(percents)
    assert percents[-1] == 100


@settings(max_examples=100, deadline=None)
@given(text=st.none() | st.text(max_size=20), size=st.integers(0, 3_000))
async def test_response_has_the_requested_size(text, size):
    params = {"seconds": 0, "size": size} if text is None else {"seconds": 0, "size": size, "text": text}
    events = await events_of(params)
    assert len(events[-1].response.encode("ascii")) == size
    assert joined(events) == events[-1].response


async def test_response_of_ten_megabytes():
    events = await events_of({"seconds": 0, "size": 10_000_000})
    assert len(events[-1].response) == 10_000_000


async def test_first_attempts_fail_at_the_requested_step():
    params = {"seconds": 0, "text": "abcdefghij", "failures": 2, "failAt": 4}
    for attempt in (1, 2):
        chunks = []
        request = AgentRequest(run_id="r", task="query", attempt=attempt, params=params)
        events = SimulatorAgent().run(request, CONTEXT)
        with pytest.raises(AgentUnavailable):
            await _drain(events, into=chunks)
        assert joined(chunks) == "abc"
    assert joined(await events_of(params, attempt=3)) == "abcdefghij"


async def test_permanent_failure_has_no_pointer():
    for attempt in (1, 9):
        with pytest.raises(AgentRejected) as raised:
            await events_of({"seconds": 0, "permanent": True}, attempt=attempt)
        assert raised.value.pointer is None


@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        ({"seconds": -1}, "/params/seconds"),
        ({"seconds": "1"}, "/params/seconds"),
        ({"seconds": float("inf")}, "/params/seconds"),
        ({"seconds": 10**400}, "/params/seconds"),
        ({"seconds": 86_401}, "/params/seconds"),
        ({"steps": 0}, "/params/steps"),
        ({"steps": True}, "/params/steps"),
        ({"steps": 1.5}, "/params/steps"),
        ({"text": None, "size": 10_000_001}, "/params/size"),
        ({"text": ["a"]}, "/params/text"),
        ({"text": "\ud800"}, "/params/text"),
        ({"failAt": 11}, "/params/failAt"),
        ({"permanent": "yes"}, "/params/permanent"),
        ({"fail_at": 1}, "/params/fail_at"),
        ({"a/b~c": 1}, "/params/a~1b~0c"),
    ],
)
async def test_wrong_params_are_rejected_with_a_pointer(params, pointer):
    with pytest.raises(AgentRejected) as raised:
        await events_of(params)
    assert raised.value.pointer == pointer
    assert pointer in raised.value.detail


_KEYS = st.sampled_from(["seconds", "steps", "text", "failures", "failAt", "permanent", "size"]) | st.text(
    st.characters(exclude_categories=()), max_size=5
)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 50)
    | st.sampled_from([0.0, 1e999, 10**4000, "\ud800", "\x00"])
    | st.text(max_size=9),
    lambda child: st.lists(child, max_size=2) | st.dictionaries(st.text(max_size=3), child, max_size=2),
    max_leaves=4,
)


@settings(max_examples=400, deadline=None)
@given(params=st.dictionaries(_KEYS, _VALUES, max_size=4), query=st.text(st.characters(exclude_categories=())))
async def test_any_params_are_followed_or_rejected(params, query):
    # Obeying a duration would take that long.
    params = {**params, "seconds": 0} if isinstance(params.get("seconds", 1), int | float) else params
    failure: AgentError | None = None
    try:
        events = await events_of(params, query=query)
    except AgentError as error:
        failure = error
    if isinstance(failure, AgentUnavailable):
        assert params["failures"] > 0
    elif failure is not None:
        assert failure.pointer or params["permanent"]
        assert (failure.detail + (failure.pointer or "")).encode()
    else:
        assert joined(events) == events[-1].response
        events[-1].model_dump_json()


async def test_zero_duration_still_yields_to_the_event_loop():
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await events_of({"seconds": 0, "steps": 2_000})
    counting.cancel()
    assert turns >= 20


async def test_simulator_stops_at_once_when_cancelled():
    running = asyncio.create_task(events_of({"seconds": 3_600}))
    await asyncio.sleep(0.05)
    start = time.perf_counter()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert time.perf_counter() - start < 10
