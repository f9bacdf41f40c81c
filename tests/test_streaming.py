"""Pattern 6 over HTTP, on both stream logs."""

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from temporalio.bridge.proto.workflow_activation import InitializeWorkflow, WorkflowActivation
from temporalio.contrib.workflow_streams import WorkflowStreamClient

from bench.server_sent_events import Event, events
from tests.support.agents import CALLS, CLEANED_UP
from tests.support.processes import until
from tests.support.stack import Stack, another_api
from tests.support.streams import indexes, last_index, read, started, text_of

FIFTY = [f"word{number} " for number in range(1, 51)]
WHOLE = "".join(FIFTY)


@pytest.fixture(scope="module", params=["temporal", "temporal, elsewhere", "redis", "redis, elsewhere"])
async def streams(request: pytest.FixtureRequest, stack: Stack, redis_stack: Stack) -> AsyncIterator[Stack]:
    """The product with each log; its API beside the worker, and as a process that has the log alone."""
    log, _, elsewhere = request.param.partition(", ")
    running = stack if log == "temporal" else redis_stack
    if not elsewhere:
        yield running
        return
    async with another_api(running) as there:
        yield there


async def test_streaming_example_of_the_article(streams: Stack) -> None:
    request_body = ["Based on the analysis", " of customer feedback", ", we identified three"]
    async with streams.http.stream(
        "POST",
        "/api/agent/stream",
        json={"query": "Analyze", "agent": "teller", "params": {"say": request_body}},
        headers={"Accept": "text/event-stream"},
    ) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["Location"] == f"/api/agent/stream/{answer.headers['X-Stream-Id']}"
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert "no-cache" in answer.headers["Cache-Control"]
        assert "Content-Encoding" not in answer.headers
        whole = await answer.aread()
    assert whole.startswith(b"retry: ")
    *chunks, done = [event async for event in events(answer)]
    assert [event.data for event in chunks] == [
        {"chunk": "Based on the analysis", "index": 1},
        {"chunk": " of customer feedback", "index": 2},
        {"chunk": ", we identified three", "index": 3},
    ]
    assert [event.id for event in chunks] == ["1", "2", "3"]
    assert done.name == "done"
    assert done.data.items() >= {"chunk": "", "done": True, "status": "completed"}.items()


async def test_stream_as_json_lines(streams: Stack) -> None:
    answer = await streams.http.post(
        "/api/agent/stream",
        json={"query": "hi", "agent": "simulator", "params": {"seconds": 0.2, "steps": 2, "text": "abcd"}},
        headers={"Accept": "application/x-ndjson"},
    )
    assert answer.headers["Content-Type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["chunk"] for line in lines if "chunk" in line] == ["ab", "cd", ""]
    assert [line["progress"] for line in lines if "progress" in line] == [50, 100]
    assert lines[-1]["usage"] == {"inputTokens": 1, "outputTokens": 1}
    failed = await streams.http.post(
        "/api/agent/stream",
        json={"query": "hi", "agent": "hopeless"},
        headers={"Accept": "application/x-ndjson"},
    )
    assert json.loads(failed.text.splitlines()[-1])["error"]["code"] == "AgentRejected"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("*/*", "text/event-stream"),
        ("application/*", "application/x-ndjson"),
        ("text/event-stream;q=0.1, application/x-ndjson;q=0.9", "application/x-ndjson"),
        ("application/json", None),
        ("text/event-stream;q=0, application/json", None),
    ],
)
async def test_accept_header_selects_the_stream_format(stack: Stack, accept: str, form: str | None) -> None:
    answer = await stack.http.post(
        "/api/agent/stream", json={"query": "hi", "agent": "echo"}, headers={"Accept": accept}
    )
    if form is None:
        assert answer.status_code == 406
        assert "text/event-stream, application/x-ndjson" in answer.json()["detail"]
    else:
        assert answer.headers["Content-Type"].startswith(form)


async def test_immediate_answer_is_one_chunk(streams: Stack) -> None:
    stream_id = await started(streams, "the whole of it", agent="echo")
    found = await read(streams.http, stream_id)
    assert [event.data for event in found[:1]] == [{"chunk": "the whole of it", "index": 1}]
    assert found[-1].name == "done"


async def test_stream_cut_repeatedly_is_read_completely(streams: Stack) -> None:
    async def cut_every(k: int) -> None:
        body = {"agent": "teller", "params": {"say": FIFTY, "pause": 0.02}}
        stream_id = await started(streams, **body)
        found: list[Event] = []
        while not found or found[-1].name != "done":
            found += await read(streams.http, stream_id, last_index(found), chunks=k)
        assert text_of(found) == WHOLE, k
        assert indexes(found) == list(range(1, 51)), k

    await asyncio.gather(*(cut_every(k) for k in range(1, 51)))


async def test_new_attempt_sends_a_reset(streams: Stack) -> None:
    stream_id = await started(
        streams,
        agent="simulator",
        params={"seconds": 0.5, "steps": 10, "text": "0123456789", "failures": 1, "failAt": 6},
    )
    found = await read(streams.http, stream_id)
    (reset,) = [event for event in found if event.data.get("reset")]
    assert reset.data["attempt"] == 2
    assert text_of(found) == "0123456789"
    assert indexes(found) == sorted(set(indexes(found)))
    for index in (0, *indexes(found)):
        resumed = await read(streams.http, stream_id, index)
        assert indexes(resumed) == [later for later in indexes(found) if later > index]
    # from beyond what was kept of the first attempt, as one has it whose server was killed
    assert text_of(await read(streams.http, stream_id, 20)) == "0123456789"


async def test_silent_second_attempt_replaces_the_text(streams: Stack) -> None:
    stream_id = await started(streams, agent="whole_at_last")
    found = await read(streams.http, stream_id)
    assert text_of(found) == "the whole"
    assert text_of(await read(streams.http, stream_id)) == "the whole"


@pytest.mark.parametrize("seconds", [0, 0.3])
async def test_failed_stream_ends_with_its_problem(streams: Stack, seconds: float) -> None:
    """The chunks are kept, also those of a run that fails before its activity starts."""
    stream_id = await started(
        streams,
        agent="simulator",
        params={"seconds": seconds, "steps": 6, "text": "abcdef", "permanent": True, "failAt": 4},
    )
    live = await read(streams.http, stream_id)
    assert text_of(live) == "abc"
    assert live[-1].name == "error"
    problem = live[-1].data
    assert problem["type"] == "/problems/agent-rejected"
    assert problem["runId"] == stream_id
    assert problem["requestId"]
    again = await read(streams.http, stream_id, 1)
    assert text_of(again) == "bc"
    assert again[-1].name == "error"


async def test_immediate_answer_calls_the_agent_once(streams: Stack) -> None:
    stream_id = await started(streams, "hello", agent="echo")
    assert text_of(await read(streams.http, stream_id)) == "hello"
    assert CALLS[stream_id] == 1


async def test_immediate_rejection_calls_the_agent_once(streams: Stack) -> None:
    stream_id = await started(streams, agent="hopeless")
    (end,) = await read(streams.http, stream_id)
    assert end.name == "error"
    assert end.data["code"] == "AgentRejected"
    assert end.data["attempts"] == 1
    assert CALLS[stream_id] == 1


async def test_unknown_stream_or_index_is_refused(streams: Stack) -> None:
    stream_id = await started(streams, agent="teller", params={"say": FIFTY})
    await streams.run_until(stream_id, "completed")
    get = streams.http.get
    assert (await get(f"/api/agent/stream/str_{'a' * 26}")).status_code == 404
    query = (await streams.query("hi", agent="echo")).json()["queryId"]
    assert (await get(f"/api/agent/stream/{query}")).status_code == 404
    for bad in (b"abc", b"-1", b"1.5", b"", b"\xb2", b"9" * 40):
        answer = await get(f"/api/agent/stream/{stream_id}", headers={b"Last-Event-ID": bad})
        assert answer.status_code == 422, bad
        assert answer.json()["errors"][0]["pointer"] == "header:last-event-id"
    for params in ({"after": "-1"}, {"after": "x"}, {"onDisconnect": "explode"}):
        assert (await get(f"/api/agent/stream/{stream_id}", params=params)).status_code == 422
    future = await get(f"/api/agent/stream/{stream_id}", headers={"Last-Event-ID": "51"})
    assert future.status_code == 422
    assert "the last index so far is 50" in future.json()["detail"]
    at_the_end = await read(streams.http, stream_id, 50)
    assert [event.name for event in at_the_end] == ["done"]


async def test_future_index_of_a_running_stream_is_refused(streams: Stack) -> None:
    stream_id = await started(streams, agent="careful", params={"seconds": 5})
    answer = await streams.http.get(f"/api/agent/stream/{stream_id}", headers={"Last-Event-ID": "2000"})
    assert answer.status_code == 422
    await streams.http.post(f"/api/agent/stream/{stream_id}/cancel")


async def test_stream_idempotency_key_finds_the_same_stream(streams: Stack) -> None:
    body = {"query": "hi", "agent": "teller", "params": {"say": FIFTY, "pause": 0.01}}
    key = {"Idempotency-Key": f"stream-{id(streams)}"}
    answers = await asyncio.gather(
        *(streams.http.post("/api/agent/stream", json=body, headers=key) for _ in range(20))
    )
    assert len({answer.headers["X-Stream-Id"] for answer in answers}) == 1
    assert sum(answer.headers.get("Idempotency-Replayed") == "true" for answer in answers) == 19
    for answer in answers:
        assert text_of([event async for event in events(answer)]) == WHOLE
    assert CALLS[answers[0].headers["X-Stream-Id"]] == 1
    other = await streams.http.post("/api/agent/stream", json={**body, "query": "other"}, headers=key)
    assert other.status_code == 422


@pytest.mark.parametrize("place", ["stream endpoint", "run endpoint", "signal", "disconnect"])
async def test_cancellation_reaches_the_agent_and_every_reader(streams: Stack, place: str) -> None:
    stream_id = await started(streams, agent="careful", params={"seconds": 60})
    readers = [asyncio.create_task(read(streams.http, stream_id)) for _ in range(5)]
    await read(streams.http, stream_id, chunks=1)
    match place:
        case "stream endpoint":
            answer = await streams.http.post(f"/api/agent/stream/{stream_id}/cancel")
            assert answer.status_code == 202
        case "run endpoint":
            assert (await streams.http.post(f"/api/agent/runs/{stream_id}/cancel")).status_code == 202
        case "signal":
            await streams.temporal.get_workflow_handle(f"default:{stream_id}").signal("cancel")
        case "disconnect":
            await read(streams.http, stream_id, chunks=1, onDisconnect="cancel")
    async with asyncio.timeout(30):
        for found in await asyncio.gather(*readers):
            assert found[-1].data == {"chunk": "", "done": True, "status": "cancelled"}
            assert text_of(found[:-1]).startswith("0 ")
    assert stream_id in CLEANED_UP
    resumed = await read(streams.http, stream_id)
    assert resumed[-1].data["status"] == "cancelled"
    assert (await streams.http.post(f"/api/agent/stream/{stream_id}/cancel")).status_code == 200


async def test_stream_disconnect_cancels_nothing(streams: Stack) -> None:
    stream_id = await started(streams, agent="teller", params={"say": FIFTY, "pause": 0.02})
    await read(streams.http, stream_id, chunks=1)
    await streams.run_until(stream_id, "completed")
    assert text_of(await read(streams.http, stream_id)) == WHOLE


async def test_two_hundred_readers_share_one_stream(streams: Stack) -> None:
    stream_id = await started(streams, agent="teller", params={"say": FIFTY, "pause": 0.04})
    limits = httpx.Limits(max_connections=250)
    async with httpx.AsyncClient(base_url=streams.http.base_url, timeout=30, limits=limits, trust_env=False) as http:
        every = await asyncio.gather(*(read(http, stream_id) for _ in range(200)))
    assert {text_of(found) for found in every} == {WHOLE}
    assert all(indexes(found) == list(range(1, 51)) for found in every)
    assert CALLS[stream_id] == 1


async def test_large_chunk_is_streamed(streams: Stack) -> None:
    stream_id = await started(streams, agent="simulator", params={"seconds": 0.1, "steps": 1, "size": 1_000_000})
    for _ in range(2):
        found = await read(streams.http, stream_id)
        assert len(text_of(found)) == 1_000_000
        await streams.run_until(stream_id, "completed")


async def test_split_surrogate_pairs_are_joined(streams: Stack) -> None:
    stream_id = await started(streams, agent="torn")
    found = await read(streams.http, stream_id)
    assert text_of(found) == "a😀b😀ü😀"
    run = await streams.run_until(stream_id, "completed")
    assert isinstance(run["result"], dict)
    assert run["result"]["response"] == "a😀b😀ü😀"
    stream_id = await started(streams, agent="torn", params={"unfinished": True})
    found = await read(streams.http, stream_id)
    assert found[-1].name == "error"
    assert "not valid Unicode" in found[-1].data["detail"]


async def test_five_thousand_chunks_are_streamed_in_order(streams: Stack) -> None:
    params = {"seconds": 2, "steps": 5_000, "text": "0123456789" * 500}
    stream_id = await started(streams, agent="simulator", params=params)
    live = await read(streams.http, stream_id)
    assert indexes(live) == list(range(1, 5_001))
    assert text_of(live) == "0123456789" * 500
    kept = await read(streams.http, stream_id, 2_500)
    assert indexes(kept) == list(range(2_501, 5_001))
    description = await streams.temporal.get_workflow_handle(f"default:{stream_id}").describe()
    assert description.history_length < 300


async def test_keep_alive_comment_is_sent_during_silence(stack: Stack) -> None:
    body = {"query": "hi", "agent": "teller", "params": {"say": ["at last"], "pause": 9}}
    for last in (False, True):  # the better of two: the machine may be busy
        initialized, comments = time.monotonic(), []
        async with stack.http.stream("POST", "/api/agent/stream", json=body) as answer:
            async for line in answer.aiter_lines():
                if line.startswith(":"):
                    comments.append(time.monotonic() - initialized)
        if comments[0] < 10 or last:
            break
    assert len(comments) == 1
    assert comments[0] < 10


async def test_any_run_can_be_streamed(streams: Stack) -> None:
    task = await streams.http.post(
        "/api/agent/tasks", json={"task": "stream", "agent": "teller", "params": {"say": FIFTY, "pause": 0.05}}
    )
    run_id = task.json()["taskId"]
    for _ in range(2):
        answer = await streams.http.get(f"/api/agent/runs/{run_id}/stream")
        assert text_of([event async for event in events(answer)]) == WHOLE
    query = await streams.query("at once", agent="echo")
    answer = await streams.http.get(f"/api/agent/runs/{query.json()['queryId']}/stream")
    assert text_of([event async for event in events(answer)]) == "at once"


async def test_completed_run_is_streamed_as_one_chunk(streams: Stack) -> None:
    query = await streams.query("at once", agent="teller", params={"say": FIFTY})
    run_id = query.json()["queryId"]
    answer = await streams.http.get(f"/api/agent/runs/{run_id}/stream")
    found = [event async for event in events(answer)]
    assert [event.data for event in found[:1]] == [{"chunk": WHOLE, "index": 1}]
    # a reader that had a part of it from memory gets a reset
    answer = await streams.http.get(f"/api/agent/runs/{run_id}/stream", params={"after": 7})
    found = [event async for event in events(answer)]
    assert found[0].data["reset"]
    assert text_of(found) == WHOLE


async def test_temporal_workflow_stream_client_reads_the_stream(stack: Stack) -> None:
    """A run truncates chunks that are older than some seconds; a live reader misses none."""
    stream_id = await started(stack, agent="teller", params={"say": 7 * FIFTY, "pause": 0.02})
    client = WorkflowStreamClient.create(stack.temporal, f"default:{stream_id}")
    text, late = "", None
    async with asyncio.timeout(60):
        async for item in client.subscribe(["stream"], result_type=list):
            text += "".join(entry["chunk"] for entry in item.data)
            if late is None and len(text) > 6.5 * len(WHOLE):
                late = await anext(client.subscribe(["stream"], from_offset=1, result_type=list))
    assert text == 7 * WHOLE
    assert late is not None
    assert late.offset > 1
    run = await stack.run_until(stream_id, "completed")
    assert isinstance(run["result"], dict)
    assert run["result"]["response"] == text


async def test_cached_run_keeps_no_task_message_in_memory(stack: Stack) -> None:
    """Neither the first task, with the request, nor the latest, with its chunks."""
    stream_id = await started(stack, agent="teller", params={"say": FIFTY, "pause": 1})

    async def repeats_message() -> bool:
        history = await stack.temporal.get_workflow_handle(f"default:{stream_id}").fetch_history()
        return sum(event.HasField("workflow_execution_signaled_event_attributes") for event in history.events) > 1

    description = await stack.temporal.get_workflow_handle(f"default:{stream_id}").describe()

    def gone() -> bool:
        kept = gc.get_objects()
        initialized = {one.workflow_id for one in kept if isinstance(one, InitializeWorkflow)}
        worked_on = {one.run_id for one in kept if isinstance(one, WorkflowActivation)}
        return f"default:{stream_id}" not in initialized and description.run_id not in worked_on

    try:
        await until(repeats_message, 20)
        # another run's task: a worker holds the very latest one
        await stack.run_until(await started(stack, agent="echo"), "completed")
        await until(gone, 10)
        assert (await stack.run(stream_id))["status"] == "processing"
    finally:
        await stack.http.post(f"/api/agent/stream/{stream_id}/cancel")
