"""Runs: list, read, and how they look in Temporal."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.stack import Stack


async def listed(stack: Stack, **filters: Any) -> list[dict[str, Any]]:
    """All pages of a list."""
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        parameters = {**filters, **({"cursor": cursor} if cursor else {})}
        answer = await stack.http.get("/api/agent/runs", params=parameters)
        assert answer.status_code == 200, answer.text
        items += answer.json()["items"]
        cursor = answer.json()["nextCursor"]
        if cursor is None:
            return items


async def test_run_shows_its_pattern_agent_and_times(stack: Stack) -> None:
    answer = await stack.query("read me", agent="echo", metadata={"a": 1})
    run = await stack.run(answer.json()["queryId"])
    assert run["id"] == answer.json()["queryId"]
    assert (run["pattern"], run["agent"], run["task"], run["status"]) == ("synchronous", "echo", "query", "completed")
    assert run["result"]["response"] == "read me"
    assert run["result"]["processingTime"] == answer.json()["processingTime"]
    assert run["error"] is None
    assert run["metadata"] == {"a": 1}
    assert run["createdAt"] <= run["closedAt"]
    assert run["links"]["temporalUi"] is None, "this Temporal has no UI"


async def test_run_list_is_paged_without_gaps_or_duplicates(stack: Stack) -> None:
    made = {(await stack.query(agent="echo", context={"n": n})).json()["queryId"] for n in range(7)}
    async with asyncio.timeout(20):  # visibility lags, and what closes meanwhile changes its place
        while not made <= {item["id"] for item in await listed(stack, agent="echo", limit=100)}:
            await asyncio.sleep(0.1)
        while (await stack.temporal.count_workflows("Agent = 'echo' AND ExecutionStatus = 'Running'")).count:
            await asyncio.sleep(0.1)
    by_threes = [item["id"] for item in await listed(stack, agent="echo", limit=3)]
    assert len(by_threes) == len(set(by_threes))
    assert made <= set(by_threes)


async def test_lagging_visibility_never_shows_a_wrong_status(stack: Stack) -> None:
    ended: set[str] = set()
    for number in range(15):
        ended.add((await stack.query(agent="echo", context={"lag": number})).json()["queryId"])
        page = (await stack.http.get("/api/agent/runs", params={"agent": "echo", "limit": 20})).json()["items"]
        assert {item["status"] for item in page if item["id"] in ended} <= {"completed"}
        assert {(await stack.run(run_id))["status"] for run_id in ended} == {"completed"}


async def test_runs_are_filtered(stack: Stack) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    failed = (await stack.query(agent="hopeless")).json()["runId"]
    done = (await stack.query(agent="echo")).json()["queryId"]
    async with asyncio.timeout(20):
        while not {failed, done} <= {item["id"] for item in await listed(stack, createdAfter=before.isoformat())}:
            await asyncio.sleep(0.1)
        while failed not in {item["id"] for item in await listed(stack, status="failed", agent="hopeless")}:
            await asyncio.sleep(0.1)
    assert {item["status"] for item in await listed(stack, status="failed")} == {"failed"}
    assert {item["agent"] for item in await listed(stack, agent="echo")} == {"echo"}
    assert await listed(stack, pattern="synchronous", task="no-such-task") == []
    assert await listed(stack, createdBefore="2020-01-01T00:00:00Z") == []
    assert await listed(stack, status="queued") == []


@pytest.mark.parametrize(
    ("parameters", "pointer"),
    [
        ({"status": "done"}, "query:status"),
        ({"pattern": "carrier-pigeon"}, "query:pattern"),
        ({"limit": "0"}, "query:limit"),
        ({"limit": "1e9"}, "query:limit"),
        ({"agent": "x' OR 1=1"}, "query:agent"),
        ({"task": "'"}, "query:task"),
        ({"createdAfter": "yesterday"}, "query:createdAfter"),
        ({"cursor": "zzz"}, "query:cursor"),
        ({"cursor": "!"}, "query:cursor"),
        ({"cursor": "é"}, "query:cursor"),
    ],
)
async def test_invalid_run_filter_is_named(stack: Stack, parameters: dict[str, str], pointer: str) -> None:
    answer = await stack.http.get("/api/agent/runs", params=parameters)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer


async def test_cursor_of_another_list_is_refused(stack: Stack) -> None:
    for _ in range(2):
        await stack.query(agent="echo")
    async with asyncio.timeout(20):
        while not (cursor := (await stack.http.get("/api/agent/runs", params={"limit": 1})).json()["nextCursor"]):
            await asyncio.sleep(0.1)
    answer = await stack.http.get("/api/agent/runs", params={"limit": 1, "cursor": cursor, "agent": "echo"})
    assert answer.status_code == 422
    for broken in (cursor[:-4] + "AAAA", cursor[:-4], cursor + "AAAA"):
        answer = await stack.http.get("/api/agent/runs", params={"limit": 1, "cursor": broken})
        assert answer.status_code == 422


@pytest.mark.parametrize(
    "run_id", ["qry_" + "a" * 26, "nonsense", "default:x", "qry_%0d%0aX", "../../etc/passwd", "%00", "é"]
)
async def test_unknown_run_is_404(stack: Stack, run_id: str) -> None:
    for answer in (
        await stack.http.get(f"/api/agent/runs/{run_id}"),
        await stack.http.post(f"/api/agent/runs/{run_id}/cancel"),
    ):
        assert answer.status_code == 404
        assert answer.headers["Content-Type"] == "application/problem+json"


async def test_temporal_ui_describes_the_run(stack: Stack) -> None:
    run_id = (await stack.query("What is wrong\nwith my order?", agent="flaky")).json()["queryId"]
    handle = stack.temporal.get_workflow_handle(f"default:{run_id}")
    description = await handle.describe()
    assert description.workflow_type == "SynchronousRequest"
    assert await description.static_summary() == "flaky · query · What is wrong with my order?"
    attributes = {pair.key.name: pair.value for pair in description.typed_search_attributes}
    del attributes["BuildIds"]  # Temporal's own
    assert attributes == {"Pattern": "synchronous", "Agent": "flaky", "Task": "query", "Tenant": "default"}
    metadata = await handle.query("__temporal_workflow_metadata")
    assert "answered at attempt 3" in str(metadata)
