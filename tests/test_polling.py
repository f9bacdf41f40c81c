"""Pattern 5 over HTTP."""

import asyncio
import time
from collections import Counter
from typing import Any

import httpx
import pytest
from temporalio.client import (
    Client,
    DescribeWorkflowInput,
    Interceptor,
    OutboundInterceptor,
    WorkflowExecutionDescription,
)

from sevenfold.api.app import create_app
from sevenfold.api.runs.poll_cache import CachedRun, PollView
from sevenfold.runtime.process.ports import bind
from tests.support.stack import Stack, components_of, http_client, served

TASKS = "/api/agent/tasks"


async def start(stack: Stack, task: str = "work", **body: Any) -> str:
    answer = await stack.http.post(TASKS, json={"task": task, **body})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["taskId"])


async def read(stack: Stack, task_id: str, headers: dict[str, str] | None = None, **query: Any) -> httpx.Response:
    return await stack.http.get(f"{TASKS}/{task_id}", params=query, headers=headers or {})


async def until_final(stack: Stack, task_id: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            state = (await read(stack, task_id, wait=10)).json()
            if state["status"] not in ("queued", "processing"):
                return dict(state)


async def test_polling_example_of_the_article(stack: Stack) -> None:
    answer = await stack.http.post(
        TASKS, json={"task": "generate_report", "params": {"title": "Weekly", "orders": 318}}
    )
    assert answer.status_code == 202
    body = answer.json()
    assert body == {"taskId": body["taskId"], "status": "processing"}
    assert answer.headers["Location"] == f"{TASKS}/{body['taskId']}"
    state = await until_final(stack, body["taskId"])
    assert list(state) == ["taskId", "status", "result"]
    assert state["status"] == "completed"
    assert "318" in str(state["result"])


async def test_progress_rises_between_polls(stack: Stack) -> None:
    task_id = await start(stack, agent="careful", params={"seconds": 5})
    seen: list[int] = []
    async with asyncio.timeout(20):
        while (state := (await read(stack, task_id)).json())["status"] != "completed":
            assert state["status"] in ("queued", "processing")
            seen.append(state["progress"])
            await asyncio.sleep(0.4)
    assert seen == sorted(seen)
    assert len(set(seen)) >= 3
    assert state["result"]["response"] == "0 1 2 3 4 5 6 7 8 9 "


async def test_unchanged_status_is_answered_304(stack: Stack) -> None:
    task_id = await start(stack, agent="echo")
    await until_final(stack, task_id)
    first = await read(stack, task_id)
    assert first.headers["Cache-Control"] == "private, no-cache"
    assert "Retry-After" not in first.headers
    for known in (first.headers["ETag"], f'"other", {first.headers["ETag"]}', "W/" + first.headers["ETag"], "*"):
        again = await read(stack, task_id, {"If-None-Match": known})
        assert again.status_code == 304
        assert again.content == b""
        assert again.headers["ETag"] == first.headers["ETag"]
    assert (await read(stack, task_id, {"If-None-Match": '"other"'})).status_code == 200


async def test_retry_after_follows_the_expected_remaining_time(stack: Stack) -> None:
    before = time.monotonic()
    task_id = await start(stack, agent="careful", params={"seconds": 20})
    after = time.monotonic()
    for percent in (10, 50):
        done = 0
        async with asyncio.timeout(30):
            while done < percent:
                await asyncio.sleep(0.3)
                asked = time.monotonic()
                answer = await read(stack, task_id)
                done = answer.json()["progress"]
        rest = (100 - done) / done
        expected = int(answer.headers["Retry-After"])
        # Retry-After is a minute at most
        assert min(60, (asked - after) * rest) - 2 <= expected <= (time.monotonic() - before) * rest + 2
    await stack.http.post(f"/api/agent/runs/{task_id}/cancel")
    assert (await until_final(stack, task_id))["status"] == "cancelled"


async def test_a_long_poll_returns_early_on_a_change_and_on_time_otherwise(stack: Stack) -> None:
    task_id = await start(stack, agent="stubborn", params={"seconds": 8})
    async with asyncio.timeout(15):
        while (first := await read(stack, task_id)).json()["status"] == "queued":
            await asyncio.sleep(0.05)
    known = {"If-None-Match": first.headers["ETag"]}
    started_at = time.monotonic()
    unchanged = await read(stack, task_id, known, wait=1)
    assert unchanged.status_code == 304
    assert time.monotonic() - started_at >= 0.9
    changed = await read(stack, task_id, known, wait=30)
    assert changed.json()["status"] == "completed"
    assert time.monotonic() - started_at < 25
    # what has ended is answered at once, and what the client does not know too
    started_at = time.monotonic()
    assert (await read(stack, task_id, {"If-None-Match": changed.headers["ETag"]}, wait=30)).status_code == 304
    assert (await read(stack, task_id, known, wait=30)).status_code == 200
    assert time.monotonic() - started_at < 15


async def test_failed_task_has_an_error(stack: Stack) -> None:
    state = await until_final(stack, await start(stack, agent="hopeless"))
    assert state["status"] == "failed"
    assert state["error"]["code"] == "AgentRejected"
    state = await until_final(stack, await start(stack, agent="down", timeout=2.5))
    assert state["status"] == "failed"
    assert state["error"]["code"] in ("DeadlineExceeded", "AgentUnavailable")


async def test_unknown_task_names_the_known_tasks(stack: Stack) -> None:
    state = await until_final(stack, await start(stack, task="make_coffee"))
    assert state["status"] == "failed"
    assert "generate_report" in state["error"]["detail"]


async def test_large_result_is_returned(stack: Stack) -> None:
    task_id = await start(stack, agent="simulator", params={"seconds": 0, "size": 5_000_000})
    assert len((await until_final(stack, task_id))["result"]["response"]) == 5_000_000


async def test_task_idempotency_key_starts_one_task(stack: Stack) -> None:
    body = {"task": "work", "agent": "echo"}
    answers = await asyncio.gather(
        *(stack.http.post(TASKS, json=body, headers={"Idempotency-Key": "task-key"}) for _ in range(20))
    )
    assert len({answer.text for answer in answers}) == 1
    assert Counter(answer.headers.get("Idempotency-Replayed") for answer in answers) == {None: 1, "true": 19}
    other = await stack.http.post(TASKS, json={**body, "task": "x"}, headers={"Idempotency-Key": "task-key"})
    assert other.status_code == 422
    # a key belongs to its route
    query = await stack.query(agent="echo", headers={"Idempotency-Key": "task-key"})
    assert query.status_code == 200


@pytest.mark.parametrize(
    ("body", "pointer"),
    [({}, "/task"), ({"task": ""}, "/task"), ({"task": "a b"}, "/task"), ({"task": "x", "params": []}, "/params")],
)
async def test_invalid_field_of_a_task_is_named(stack: Stack, body: dict[str, Any], pointer: str) -> None:
    answer = await stack.http.post(TASKS, json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


async def test_unknown_task_id_is_404(stack: Stack) -> None:
    query_id = (await stack.query(agent="echo")).json()["queryId"]
    for task_id in ("task_" + "a" * 26, "task_123", query_id, "%00"):
        for wait in (0, 5):
            answer = await read(stack, task_id, wait=wait)
            assert answer.status_code == 404, task_id
    assert (await read(stack, "task_" + "a" * 26, wait=61)).status_code == 422


class Counted(Interceptor):
    """Counts what an API process asks of Temporal."""

    def __init__(self) -> None:
        self.describes = 0

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:
        counted = self

        class Outbound(OutboundInterceptor):
            async def describe_workflow(self, input: DescribeWorkflowInput) -> WorkflowExecutionDescription:
                counted.describes += 1
                return await super().describe_workflow(input)

        return Outbound(next)


async def test_many_pollers_share_one_reader(stack: Stack) -> None:
    task_id = await start(stack, agent="stubborn", params={"seconds": 6})
    counted = Counted()
    client = Client(
        stack.temporal.service_client, data_converter=stack.temporal.data_converter, interceptors=[counted]
    )
    app = create_app(components_of(stack, client))
    with bind("127.0.0.1", 0, "SEVENFOLD_PORT") as sock:
        port = sock.getsockname()[1]
        async with served(app, sock, stack.settings), http_client(port) as http:
            started_at = time.monotonic()
            answers = await asyncio.gather(*(http.get(f"{TASKS}/{task_id}", params={"wait": 20}) for _ in range(150)))
            answers += await asyncio.gather(*(http.get(f"{TASKS}/{task_id}") for _ in range(150)))
            seconds = time.monotonic() - started_at
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["status"] for answer in answers[150:]} <= {"processing", "completed"}
    assert counted.describes <= 7 * seconds + 4, "at most a few a second, however many they are"


async def test_status_is_answered_without_a_worker(stack: Stack) -> None:
    components = components_of(stack, stack.temporal, task_queue="nobody-polls-this")
    with bind("127.0.0.1", 0, "SEVENFOLD_PORT") as sock:
        port = sock.getsockname()[1]
        async with served(create_app(components), sock, stack.settings), http_client(port) as http:
            task_id = (await http.post(TASKS, json={"task": "x", "agent": "echo"})).json()["taskId"]
            state = await http.get(f"{TASKS}/{task_id}")
            assert state.json() == {"taskId": task_id, "status": "queued", "progress": 0}
            assert int(state.headers["Retry-After"]) >= 1
            assert (await http.post(f"/api/agent/runs/{task_id}/cancel")).status_code == 202
    await stack.temporal.get_workflow_handle(f"default:{task_id}").terminate("nobody will come")
    assert (await stack.run(task_id))["error"]["code"] == "Terminated"


async def test_disconnecting_poller_does_not_affect_the_others() -> None:
    reads = 0

    async def slow_read() -> PollView:
        nonlocal reads
        reads += 1
        await asyncio.sleep(0.2)
        return PollView("{}", str(reads), has_ended=False, has_completed=False, retry_after=1)

    watch = CachedRun(slow_read)
    first, second = asyncio.create_task(watch.current()), asyncio.create_task(watch.current())
    await asyncio.sleep(0.05)
    first.cancel()
    assert (await second).version == "1"
    assert reads == 1
    assert (await watch.wait_for_change("1", 5)).version == "2"
