"""Pattern 2 over HTTP."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from sevenfold.adapters.temporal.durations import Durations, TaskKind
from sevenfold.api.runs.estimates import describe_seconds
from tests.support.agents import CALLS
from tests.support.stack import Stack

JOBS = "/api/agent/jobs"


async def start(stack: Stack, task: str = "work", **body: Any) -> str:
    answer = await stack.http.post(JOBS, json={"task": task, **body})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["jobId"])


async def read(stack: Stack, job_id: str) -> dict[str, Any]:
    answer = await stack.http.get(f"{JOBS}/{job_id}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def until_ended(stack: Stack, job_id: str, seconds: float = 60) -> dict[str, Any]:
    async with asyncio.timeout(seconds):
        while (job := await read(stack, job_id))["status"] in ("queued", "processing"):
            await asyncio.sleep(0.1)
    return job


async def lines(stack: Stack, job_id: str, **query: Any) -> tuple[list[dict[str, Any]], str | None]:
    answer = await stack.http.get(f"{JOBS}/{job_id}/results", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()], answer.headers.get("X-Next-Cursor")


async def all_lines(stack: Stack, job_id: str, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = "0"
    while cursor is not None:
        page, cursor = await lines(stack, job_id, cursor=cursor, limit=limit)
        found += page
    return found


async def test_queue_example_of_the_article(stack: Stack) -> None:
    answer = await stack.http.post(
        JOBS, json={"task": "analyze_sentiment", "data": {"documentIds": ["doc1", "doc2", "doc3"]}}
    )
    assert answer.status_code == 202
    body = answer.json()
    assert body["jobId"].startswith("job_")
    assert body["status"] == "queued"
    assert body["estimatedTime"] == "less than a minute"
    assert answer.headers["Location"] == f"{JOBS}/{body['jobId']}"
    job = await until_ended(stack, body["jobId"])
    assert job["status"] == "completed"
    assert [score["id"] for score in job["result"]["sentimentScores"]] == ["doc1", "doc2", "doc3"]


async def test_failed_item_does_not_fail_the_job(stack: Stack) -> None:
    items = ["a", "bad", "c", "slow", "e"]
    job = await until_ended(stack, await start(stack, agent="item", data={"items": items, "common": 1}))
    assert job["status"] == "completed"
    assert job["progress"] == {"completed": 4, "failed": 1, "total": 5, "percent": 100}
    assert [line["index"] for line in job["result"]["items"]] == [0, 1, 2, 3, 4]
    assert [line["status"] for line in job["result"]["items"]].count("failed") == 1
    assert job["result"]["items"][1]["error"]["detail"] == "This item is bad."
    assert job["result"]["items"][0]["result"] == {"item": "a", "common": 1}


async def test_transient_failure_retries_its_item_only(stack: Stack) -> None:
    job_id = await start(stack, agent="item", data={"items": ["a", "flaky", "b"]})
    job = await until_ended(stack, job_id)
    assert job["progress"]["completed"] == 3
    assert CALLS[job_id] == 4


@pytest.mark.parametrize("total", [1, 2, 101])
async def test_empty_small_and_duplicate_lists(stack: Stack, total: int) -> None:
    job_id = await start(stack, agent="item", data={"documentIds": ["same"] * total})
    job = await until_ended(stack, job_id)
    assert job["progress"] == {"completed": total, "failed": 0, "total": total, "percent": 100}
    found = await all_lines(stack, job_id, limit=40)
    assert [line["index"] for line in found] == list(range(total))
    assert ("items" in job["result"]) == (total <= 100)


@pytest.mark.slow
async def test_ten_thousand_items_keep_the_history_small(stack: Stack) -> None:
    ids = [f"doc{number}" for number in range(10_000)]
    job_id = await start(stack, agent="item", data={"documentIds": ids}, concurrency=100)
    job = await until_ended(stack, job_id)
    assert job["progress"]["completed"] == 10_000
    assert CALLS[job_id] == 10_000
    found = await all_lines(stack, job_id, limit=3_000)
    assert [line["result"]["item"] for line in found] == ids
    description = await stack.temporal.get_workflow_handle(f"default:{job_id}").describe()
    assert description.history_length < 2_000
    run = await stack.run(job_id)
    assert run["pattern"] == "queue"
    assert run["result"]["response"] == "10000 of 10000 items completed."


async def test_results_are_paged_during_the_job_and_kept_after_cancellation(stack: Stack) -> None:
    items = ["slow"] * 2_000
    job_id = await start(stack, agent="item", data={"items": items}, concurrency=20)
    seen: list[int] = []
    async with asyncio.timeout(30):
        while len(seen) < 60:
            page, cursor = await lines(stack, job_id, cursor=len(seen), limit=50)
            seen += [line["index"] for line in page]
            assert cursor == str(len(seen))
            await asyncio.sleep(0.05)
    assert (await read(stack, job_id))["status"] == "processing"
    await stack.http.post(f"/api/agent/runs/{job_id}/cancel")
    job = await until_ended(stack, job_id, seconds=30)
    assert job["status"] == "cancelled"
    kept = await all_lines(stack, job_id, 1000)
    assert [line["index"] for line in kept] == list(range(len(items)))
    statuses = [line["status"] for line in kept]
    assert set(statuses) == {"completed", "cancelled"}
    assert len(seen) <= statuses.count("completed") == job["progress"]["completed"] < len(items)
    called = CALLS[job_id]
    await asyncio.sleep(0.5)
    assert CALLS[job_id] == called, "nothing goes on after the end"


async def test_job_fails_after_max_failures(stack: Stack) -> None:
    job_id = await start(stack, agent="item", data={"items": ["bad"] * 500}, maxFailures=5, concurrency=4)
    job = await until_ended(stack, job_id)
    assert job["status"] == "failed"
    assert job["error"]["code"] == "TooManyFailures"
    assert "maxFailures=5" in job["error"]["detail"]
    assert CALLS[job_id] < 20
    job = await until_ended(stack, await start(stack, agent="item", data={"items": ["bad", "bad"]}, maxFailures=0))
    assert job["status"] == "failed"
    assert job["progress"] == {"completed": 0, "failed": 2, "total": 2, "percent": 100}, "counted, though it failed"
    job = await until_ended(stack, await start(stack, agent="item", data={"items": ["bad", "a"]}, maxFailures=1))
    assert job["status"] == "completed"


async def test_jobs_have_a_queue_of_their_own_with_fairness_and_priority(stack: Stack) -> None:
    job_id = await start(stack, agent="item", data={"items": ["a"]}, priority=1)
    await until_ended(stack, job_id)
    description = await stack.temporal.get_workflow_handle(f"default:{job_id}").describe()
    priority = description.raw_description.workflow_execution_info.priority
    assert (priority.priority_key, priority.fairness_key) == (1, "default")
    assert description.task_queue == "sevenfold-batch"


async def test_a_long_chunk_is_one_attempt(stack: Stack) -> None:
    """24 s, longer than the SDK waits for a heartbeat of its own."""
    items = [{"n": number} for number in range(12)]
    body = {"agent": "simulator", "params": {"seconds": 4}, "concurrency": 2}
    job = await start(stack, data={"items": items}, **body)
    ended = await until_ended(stack, job, 90)
    assert ended["status"] == "completed", ended
    history = await stack.temporal.get_workflow_handle(f"default:{job}").fetch_history()
    chunks = [one.activity_task_started_event_attributes.attempt for one in history.events]
    assert [attempt for attempt in chunks if attempt] == [1]


async def test_fan_out_names_the_list(stack: Stack) -> None:
    body = {"agent": "item", "data": {"rows": ["a", "b"], "items": ["x"]}, "fanOut": "rows"}
    job = await until_ended(stack, await start(stack, **body))
    assert job["progress"]["total"] == 2


async def test_data_without_a_list_is_one_call(stack: Stack) -> None:
    job = await until_ended(stack, await start(stack, agent="echo", data={"text": "whole"}))
    assert job["progress"] == {"completed": 1, "failed": 0, "total": 1, "percent": 100}


async def test_deadline_ends_a_job(stack: Stack) -> None:
    job_id = await start(stack, agent="item", data={"items": ["slow"] * 500}, concurrency=1, timeout=2)
    job = await until_ended(stack, job_id, seconds=15)
    assert job["status"] == "failed"
    assert job["error"]["code"] == "DeadlineExceeded"


async def test_job_with_unknown_task_names_the_known_tasks(stack: Stack) -> None:
    job = await until_ended(stack, await start(stack, task="make_coffee", data={"text": "x"}))
    assert job["status"] == "failed"
    assert "analyze_sentiment" in job["error"]["detail"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"data": {}}, "/task"),
        ({"task": "x", "data": {"documentIds": []}}, "/data/documentIds"),
        ({"task": "x", "data": {"documentIds": "doc1"}}, "/data/documentIds"),
        ({"task": "x", "data": {"items": {"a": 1}}}, "/data/items"),
        ({"task": "x", "data": {"a": [1]}, "fanOut": "b"}, "/fanOut"),
        ({"task": "x", "data": {"a/b": 1}, "fanOut": "a/b"}, "/data/a~1b"),
        ({"task": "x", "data": []}, "/data"),
        ({"task": "x", "concurrency": -1}, "/concurrency"),
        ({"task": "x", "concurrency": 0}, "/concurrency"),
        ({"task": "x", "concurrency": 1e9}, "/concurrency"),
        ({"task": "x", "maxFailures": -1}, "/maxFailures"),
        ({"task": "x", "timeout": 1e9}, "/timeout"),
        ({"task": "x", "agent": "nobody"}, "/agent"),
    ],
)
async def test_invalid_field_of_a_job_is_named(stack: Stack, body: dict[str, Any], pointer: str) -> None:
    answer = await stack.http.post(JOBS, json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer


async def test_unknown_job_id_is_404(stack: Stack) -> None:
    whole = await start(stack, agent="echo")
    query_id = (await stack.query(agent="echo")).json()["queryId"]
    for path in ("job_" + "a" * 26, "job_abc123", query_id, f"job_{'a' * 26}/results", f"{whole}/results"):
        answer: httpx.Response = await stack.http.get(f"{JOBS}/{path}")
        assert answer.status_code == 404, path
    detail = f"This job has no items: the agent processed its data as a whole. Read the result at {JOBS}/{whole}."
    assert answer.json()["detail"] == detail
    answer = await stack.http.get(f"{JOBS}/{whole}/results", params={"cursor": -1})
    assert answer.status_code == 422


async def test_job_idempotency_key_starts_one_job(stack: Stack) -> None:
    body = {"task": "work", "agent": "item", "data": {"items": ["a", "b"]}}
    answers = await asyncio.gather(
        *(stack.http.post(JOBS, json=body, headers={"Idempotency-Key": "job-key"}) for _ in range(20))
    )
    assert len({answer.json()["jobId"] for answer in answers}) == 1
    job_id = answers[0].json()["jobId"]
    await until_ended(stack, job_id)
    assert CALLS[job_id] == 2


async def test_job_estimate_follows_measured_durations(stack: Stack) -> None:
    # Nothing is configured for this agent, and nothing measured yet.
    first = await stack.http.post(JOBS, json={"task": "estimated", "agent": "item", "data": {"items": ["slow"] * 20}})
    assert first.json()["estimatedTime"] == "unknown"
    await until_ended(stack, first.json()["jobId"])
    # This process caches statistics for half a minute; another one has none yet.
    work = TaskKind("default", "item", "estimated")
    async with asyncio.timeout(20):  # visibility lags
        while (seconds := (await Durations(stack.temporal, {}).get_stats(work)).item_seconds) is None:
            await asyncio.sleep(0.2)
    assert 0.005 < seconds < 2


def test_estimates_are_worded_as_in_the_article() -> None:
    assert describe_seconds(None) == "unknown"
    assert describe_seconds(3) == "less than a minute"
    assert describe_seconds(420) == "5-10 minutes"
    assert describe_seconds(5_000) == "1-2 hours"
    assert describe_seconds(1e9) == "more than a day"
