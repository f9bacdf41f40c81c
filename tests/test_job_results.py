"""Result pages of jobs that ended early."""

import json
from typing import Any

import pytest

from tests.support.processes import until
from tests.support.stack import Stack


async def lines(stack: Stack, job_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = "0"
    while cursor is not None:
        answer = await stack.http.get(f"/api/agent/jobs/{job_id}/results", params={"cursor": cursor, "limit": 37})
        found += [json.loads(line) for line in answer.text.splitlines()]
        assert answer.headers.get("X-Next-Cursor") != cursor
        cursor = answer.headers.get("X-Next-Cursor")
    return found


@pytest.mark.parametrize("how", ["cancelled", "too many failures", "deadline"])
async def test_results_of_a_job_that_ended_early_are_paged_without_gaps(stack: Stack, how: str) -> None:
    items: list[Any] = [f"item {number}" if number % 3 else "slow" for number in range(300)]
    more: dict[str, Any] = {"concurrency": 60}
    if how == "too many failures":
        items[5:8], more["maxFailures"] = ["bad"] * 3, 2
    if how == "deadline":
        items, more["timeout"], more["agent"] = list(range(300)), 3, "careful"
    answer = await stack.http.post(
        "/api/agent/jobs", json={"task": "work", "agent": "item", "data": {"items": items}, **more}
    )
    job_id = answer.json()["jobId"]
    if how == "cancelled":
        await until(lambda: _some_done(stack, job_id))
        await stack.http.post(f"/api/agent/runs/{job_id}/cancel")
    await stack.run_until(job_id, "cancelled", "failed", "completed", seconds=60)
    job = (await stack.http.get(f"/api/agent/jobs/{job_id}")).json()
    found = await lines(stack, job_id)
    assert [line["index"] for line in found] == list(range(300))
    statuses = [line["status"] for line in found]
    assert statuses.count("completed") == job["progress"]["completed"]
    if job["status"] != "completed":
        assert statuses.count("completed") + statuses.count("failed") + statuses.count("cancelled") == 300


async def _some_done(stack: Stack, job_id: str) -> bool:
    progress: Any = (await stack.run(job_id))["progress"]
    return bool(progress and progress["percent"] > 2)
