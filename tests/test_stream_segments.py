"""Streams that are longer than the server lets one workflow take signals, and runs that nobody follows."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sevenfold.contracts.runs.streams import segment_workflow_id
from tests.support.agents import CALLS
from tests.support.processes import until
from tests.support.stack import Stack, another_api, running_stack
from tests.support.streams import indexes, read, started, text_of

EXPECTED_TEXT = "".join(chr(97 + number % 26) for number in range(120))
BODY: dict[str, Any] = {"agent": "simulator", "params": {"seconds": 6, "steps": 60, "text": EXPECTED_TEXT}}


@pytest.fixture(scope="module")
async def short(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Over a server that takes 15 signals per workflow instead of 10,000."""
    limits = ("history.maximumSignalsPerExecution=15",)
    async with running_stack(tmp_path_factory.mktemp("short"), temporal_dynamic_config=limits) as stack:
        yield stack


async def segments(stack: Stack, run_id: str) -> int:
    number = 1
    while True:
        try:
            await stack.temporal.get_workflow_handle(segment_workflow_id(f"default:{run_id}", number + 1)).describe()
        except Exception:
            return number
        number += 1


async def test_stream_continues_in_a_new_segment_at_the_signal_limit(short: Stack) -> None:
    """Two readers in another process follow it live, one reconnects after a cut; it is read again later."""
    async with another_api(short) as api:
        stream_id = await started(api, **BODY)
        whole = asyncio.create_task(read(api.http, stream_id))
        cut = await read(api.http, stream_id, chunks=25)
        rest = await read(api.http, stream_id, after=indexes(cut)[-1])
        found = await whole
        assert text_of(found) == EXPECTED_TEXT
        assert indexes(found) == list(range(1, 61))
        assert text_of(cut) + text_of(rest) == EXPECTED_TEXT
    run = await short.run_until(stream_id, "completed", "failed")
    assert run["status"] == "completed", run["error"]
    assert run["attempt"] == 1
    assert CALLS[stream_id] <= 1
    assert await segments(short, stream_id) >= 3
    assert indexes(await read(short.http, stream_id)) == list(range(1, 61)), "later too"
    assert indexes(await read(short.http, stream_id, after=50)) == list(range(51, 61))
    ends = short.temporal.get_workflow_handle(segment_workflow_id(f"default:{stream_id}", 2))
    await asyncio.wait_for(ends.result(), 10)


async def test_stream_without_readers_continues_in_a_new_segment(short: Stack) -> None:
    stream_id = await started(short, **BODY)
    run = await short.run_until(stream_id, "completed", "failed", seconds=40)
    assert run["status"] == "completed", run["error"]
    found = await read(short.http, stream_id)
    assert text_of(found) == EXPECTED_TEXT
    assert indexes(found) == list(range(1, 61))


async def test_next_attempt_continues_in_the_last_segment(short: Stack) -> None:
    params = {**BODY["params"], "failures": 1, "failAt": 50}
    async with another_api(short) as api:
        stream_id = await started(api, agent="simulator", params=params)
        found = await read(api.http, stream_id)
    assert text_of(found) == EXPECTED_TEXT
    assert [event.data["attempt"] for event in found if event.data.get("reset")] == [2]
    kept = indexes(found)
    assert kept == sorted(set(kept))
    assert text_of(await read(short.http, stream_id)) == EXPECTED_TEXT


async def events(stack: Stack, run_id: str) -> int:
    return (await stack.temporal.get_workflow_handle(f"default:{run_id}").describe()).history_length


async def test_run_without_readers_publishes_nothing(stack: Stack) -> None:
    """The agent's chunks stay in the worker, and the result is the stream."""
    params = {"seconds": 4, "steps": 40, "text": EXPECTED_TEXT}
    answer = await stack.query(agent="simulator", params=params)
    assert answer.status_code == 200
    run_id = answer.json()["queryId"]
    assert await events(stack, run_id) <= 14
    found = await read_run(stack, run_id)
    assert found == EXPECTED_TEXT


async def test_first_remote_reader_makes_the_run_publish(stack: Stack) -> None:
    params = {"seconds": 6, "steps": 60, "text": EXPECTED_TEXT}
    started_run = await stack.http.post(
        "/api/agent/tasks", json={"task": "work", "agent": "simulator", "params": params}
    )
    run_id = started_run.json()["taskId"]
    await asyncio.sleep(2)
    assert await events(stack, run_id) <= 8
    async with another_api(stack) as api, api.http.stream("GET", f"/api/agent/runs/{run_id}/stream") as answer:
        lines = [line async for line in answer.aiter_lines() if line.startswith("data: ")]
    assert len(lines) > 20, "from then on piece by piece"
    assert await read_run(stack, run_id) == EXPECTED_TEXT


async def test_late_reader_in_the_same_process_gets_the_earlier_chunks(stack: Stack) -> None:
    params = {"seconds": 3, "steps": 30, "text": EXPECTED_TEXT}
    started_run = await stack.http.post(
        "/api/agent/tasks", json={"task": "work", "agent": "simulator", "params": params}
    )
    run_id = started_run.json()["taskId"]
    await until(lambda: _percent(stack, run_id))
    assert await read_run(stack, run_id) == EXPECTED_TEXT
    assert await read_run(stack, run_id) == EXPECTED_TEXT


async def _percent(stack: Stack, run_id: str) -> bool:
    progress: Any = (await stack.run(run_id))["progress"]
    return bool(progress and progress["percent"] > 30)


async def read_run(stack: Stack, run_id: str) -> str:
    from bench.server_sent_events import events as parsed  # noqa: PLC0415

    async with stack.http.stream("GET", f"/api/agent/runs/{run_id}/stream") as answer:
        return text_of([event async for event in parsed(answer)])
