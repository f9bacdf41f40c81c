"""Runs without a worker, payloads that are gone, jobs that ended early, reactions that are driven again, lanes."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sevenfold.contracts.events import ordering_workflow_id
from sevenfold.contracts.identity import build_workflow_id
from tests.event_help import EVENTS, LETTERS, event, published, subscribed, tree, wait_until_settled
from tests.processes import EmbeddedTemporalOnly, until
from tests.receivers import SECRET, running_receiver
from tests.stack import Stack, http_client, make_settings, running_stack, sevenfold, until_ready
from tests.stalling_proxy import stalling_proxy
from tests.streams import events as stream_events

LARGE = "x" * 300_000


async def test_without_a_worker_deadlines_and_cancellations_hold(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    async with EmbeddedTemporalOnly(settings) as address, running_receiver() as receiver:
        more = {"TEMPORAL_ADDRESS": address, "SEVENFOLD_SECRET_KEY": "A" * 43 + "="}
        with sevenfold("api", settings, **more) as api:
            async with http_client(settings.port) as http:
                await until(lambda: _answers(http, api), 30)
                body = {"task": "work", "agent": "echo", "timeout": 2}
                webhook = {"webhookUrl": receiver.url("/hook"), "webhookSecret": SECRET}
                late = (await http.post("/api/agent/tasks", json={**body, **webhook})).json()["taskId"]
                waiting = (await http.get(f"/api/agent/runs/{late}")).json()
                assert waiting["status"] == "queued"
                assert "No worker polls" in waiting["waiting"]["reason"]
                stopped = (await http.post("/api/agent/tasks", json={**body, "timeout": 60})).json()["taskId"]
                answer = await http.post(f"/api/agent/runs/{stopped}/cancel")
                assert answer.status_code == 202
                assert answer.json()["cancelRequested"] is True
                assert answer.json()["status"] == "queued"
                await until(lambda: _status(http, late, "failed"), 10)
                run = (await http.get(f"/api/agent/runs/{late}")).json()
                assert run["error"]["code"] == "DeadlineExceeded"
                with sevenfold("worker.py", settings, **more):
                    await until(lambda: _status(http, stopped, "cancelled"), 30)
                    await until(lambda: receiver.at("/hook"), 30)
                    again = (await http.get(f"/api/agent/runs/{late}")).json()
                    assert again["status"] == "failed"
                    assert again["error"]["code"] == "DeadlineExceeded"
                    assert receiver.at("/hook")[0].json["status"] == "failed"


async def _answers(http: Any, process: Any) -> bool:
    assert process.process.poll() is None, process.output()
    try:
        return (await http.get("/health/live")).status_code == 200
    except Exception:
        return False


async def _status(http: Any, run_id: str, status: str) -> bool:
    return (await http.get(f"/api/agent/runs/{run_id}")).json()["status"] == status


@pytest.mark.parametrize("damage", ["removed", "cut", "changed"])
async def test_a_run_whose_input_is_gone_ends(tmp_path: Path, damage: str) -> None:
    settings = make_settings(tmp_path)
    async with EmbeddedTemporalOnly(settings) as address:
        more = {"TEMPORAL_ADDRESS": address}
        with sevenfold("api", settings, **more) as api:
            async with http_client(settings.port) as http:
                await until(lambda: _answers(http, api), 30)
                body = {"task": "work", "agent": "echo", "params": {"text": LARGE}}
                run_id = (await http.post("/api/agent/tasks", json=body)).json()["taskId"]
                (settings.data_dir / "payloads" / "aa").mkdir(parents=True, exist_ok=True)
                for path in (settings.data_dir / "payloads").glob("??/*"):
                    _damage(path, damage)
                with sevenfold("worker.py", settings, **more):
                    await until(lambda: _status(http, run_id, "failed"), 40)
                run = (await http.get(f"/api/agent/runs/{run_id}")).json()
                assert run["error"]["code"] == "PayloadLost"


def _damage(path: Path, how: str) -> None:
    match how:
        case "removed":
            path.unlink()
        case "cut":
            path.write_bytes(path.read_bytes()[:1_000])
        case "changed":
            path.write_bytes(path.read_bytes().replace(b"xxxx", b"yyyy"))


async def test_a_result_that_is_gone_is_a_410(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        answer = await stack.query(LARGE, agent="echo")
        run_id = answer.json()["queryId"]
        shutil.rmtree(stack.settings.data_dir / "payloads")
        (stack.settings.data_dir / "payloads" / "aa").mkdir(parents=True)
        for path in (f"runs/{run_id}", f"runs/{run_id}/stream"):
            answer = await stack.http.get(f"/api/agent/{path}")
            assert answer.status_code == 410, answer.text
            assert answer.json()["type"] == "urn:sevenfold:problem:payload-lost"
        assert (await stack.http.get("/api/agent/runs")).status_code == 200


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
async def test_results_of_a_job_that_ended_early_are_paged_over_their_gaps(stack: Stack, how: str) -> None:
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


async def test_a_redriven_reaction_has_a_life_of_its_own(tmp_path: Path) -> None:
    """What it says, publishes and delivers is not taken for what its first life said."""
    flag = tmp_path / "well"
    (tmp_path / "moody.py").write_text(
        "from pathlib import Path\n"
        "from sevenfold import AgentRejected, Delta, Reply\n"
        "async def agent(request):\n"
        "    for word in ('a ', 'b ', 'c '):\n"
        "        yield Delta(text=word)\n"
        f"    if not Path({str(flag)!r}).exists():\n"
        "        raise AgentRejected('not today')\n"
        "    yield Reply(response='a b c ')\n"
    )
    config = '[agents.moody]\nkind = "python"\ntarget = "moody:agent"\n[interactions]\nenabled = true'
    async with running_stack(tmp_path, more_config=config) as stack, running_receiver() as receiver:
        await subscribed(stack, "moody", "t.moody", "moody", webhookUrl=receiver.url("/hook"), webhookSecret=SECRET)
        found = await wait_until_settled(stack.http, await published(stack.http, event("t.moody")))
        reaction = found["reactions"][0]["id"]
        assert found["reactions"][0]["status"] == "failed"
        await until(lambda: len(receiver.at("/hook")) == 1, 20)
        flag.touch()
        assert (await stack.http.post(f"{LETTERS}/{reaction}/redrive")).status_code == 202
        assert (await stack.run_until(reaction, "completed"))["status"] == "completed"
        await until(lambda: len(receiver.at("/hook")) == 2, 20)
        first, second = receiver.at("/hook")
        assert (first.json["status"], second.json["status"]) == ("failed", "completed")
        assert first.headers["webhook-id"] != second.headers["webhook-id"]

        async def reported() -> set[str]:
            listed = (await stack.http.get(f"{EVENTS}?source=/sevenfold/runs")).json()["items"]
            return {one["event"]["type"] for one in listed if one["event"]["data"]["runId"] == reaction}

        await until(lambda: reported(), 10)
        async with asyncio.timeout(10):
            while await reported() != {"interaction.failed", "interaction.completed"}:
                await asyncio.sleep(0.2)
        async with stack.http.stream(
            "GET", f"/api/agent/runs/{reaction}/stream", headers={"Last-Event-ID": "2"}
        ) as answer:
            read = [one async for one in stream_events(answer)]
        assert any(one.data.get("reset") for one in read), "who had a part of the first life begins anew"


async def test_a_lane_recovers_though_events_keep_coming(stack: Stack) -> None:
    """A reaction inside was terminated; no news puts off the look at who is inside."""
    await subscribed(stack, "steady", "t.steady", "careful", params={"seconds": 0.2}, orderBy="data.key")
    await subscribed(stack, "steady", "t.steady", "careful", params={"seconds": 60}, orderBy="data.key")
    first = await published(stack.http, event("t.steady", {"key": "k"}))
    inside = await _reaction(stack, first)
    await subscribed(stack, "steady", "t.steady", "echo", orderBy="data.key")
    await stack.temporal.get_workflow_handle(build_workflow_id("default", inside)).terminate()
    coming = []
    async with asyncio.timeout(45):
        while True:
            coming.append(await published(stack.http, event("t.steady", {"key": "k", "n": len(coming)})))
            await asyncio.sleep(2)
            found = await tree(stack.http, coming[0])
            if found["reactions"] and found["reactions"][0]["status"] == "completed":
                break
    for one in coming:
        await wait_until_settled(stack.http, one)


async def _reaction(stack: Stack, event_id: str) -> str:
    async with asyncio.timeout(20):
        while not (reactions := (await tree(stack.http, event_id))["reactions"]):
            await asyncio.sleep(0.1)
    return str(reactions[0]["id"])


async def test_an_event_of_its_own_enters_no_lane(stack: Stack) -> None:
    """It matches the filter of the subscription that published it, and is refused before it waits for anything."""
    await subscribed(stack, "narcissus", "t.echoing", "echo", publishes="t.echoing", orderBy="subject")
    began = asyncio.get_running_loop().time()
    for _ in range(3):
        found = await wait_until_settled(stack.http, await published(stack.http, event("t.echoing", subject="s")))
        assert [one["status"] for one in found["reactions"]] == ["completed"]
    assert asyncio.get_running_loop().time() - began < 20


async def test_a_cancelled_event_leaves_all_its_lanes(stack: Stack) -> None:
    for name in ("lane-a", "lane-b"):
        await subscribed(stack, name, "t.lanes", "careful", params={"seconds": 60}, orderBy="subject")
    first = await published(stack.http, event("t.lanes", subject="s"))
    await until(lambda: _two_reactions(stack, first))
    second = await published(stack.http, event("t.lanes", subject="s"))
    await asyncio.sleep(0.5)
    await stack.http.post(f"/api/agent/runs/{second}/cancel")
    for reaction in (await tree(stack.http, first))["reactions"]:
        await stack.http.post(f"/api/agent/runs/{reaction['id']}/cancel")
    for name in ("lane-a", "lane-b"):
        semaphore = stack.temporal.get_workflow_handle(ordering_workflow_id("default", name, "=s"))
        await asyncio.wait_for(semaphore.result(), 30)


async def _two_reactions(stack: Stack, event_id: str) -> bool:
    return len((await tree(stack.http, event_id))["reactions"]) == 2


async def test_a_full_disk_is_told_and_an_answer_waits_for_room(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    disk = tmp_path / "data"
    disk.mkdir()
    mounted = await asyncio.create_subprocess_exec("mount", "-t", "tmpfs", "-o", "size=120m", "tmpfs", str(disk))
    if await mounted.wait() != 0:
        pytest.skip("mounting is not allowed here")
    try:
        with sevenfold("dev", settings) as product:
            await until_ready(settings.port, process=product)
            async with http_client(settings.port) as http:
                body = {"task": "work", "agent": "careful", "params": {"seconds": 2}}
                run_id = (await http.post("/api/agent/tasks", json=body)).json()["taskId"]
                ballast = disk / "ballast"
                free = shutil.disk_usage(disk).free
                ballast.write_bytes(b"\0" * (free - 8_000_000))
                await asyncio.sleep(1.5)
                ready = await http.get("/health/ready")
                assert ready.status_code == 503
                assert "MB are free" in ready.json()["storage"]
                refused = await http.post("/api/agent/query", json={"query": "hi"})
                assert refused.status_code == 507
                assert refused.headers["Retry-After"]
                assert (await http.post(EVENTS, json=event("t.full"))).status_code == 507
                await asyncio.sleep(2)
                ballast.unlink()
                await until(lambda: _status(http, run_id, "completed"), 30)
                run = (await http.get(f"/api/agent/runs/{run_id}")).json()
                assert run["attempt"] == 1
                await until_ready(settings.port, process=product)
    finally:
        await (await asyncio.create_subprocess_exec("umount", "-l", str(disk))).wait()


async def test_a_temporal_that_does_not_answer_is_a_problem_within_seconds(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    async with EmbeddedTemporalOnly(settings) as address, stalling_proxy(address, b"stall here") as proxy:
        with sevenfold("api", settings, TEMPORAL_ADDRESS=proxy.address) as api:
            async with http_client(settings.port) as http:
                await until(lambda: _answers(http, api), 30)
                first = await http.post("/api/agent/query", json={"query": "stall here"})
                assert proxy.stalled.is_set()
                again = await asyncio.gather(
                    http.post("/api/agent/query", json={"query": "hi"}),
                    http.get("/api/agent/runs/qry_abcdefghijklmnopqrstuvwxyz"),
                    http.get("/api/agent/runs"),
                    http.get("/api/agent/stats"),
                    http.get("/api/agent/events"),
                    http.post("/api/agent/events", json=event("t.stalled")),
                )
                for answer in (first, *again):
                    assert answer.status_code == 503, answer.text
                    assert answer.json()["type"] == "urn:sevenfold:problem:temporal-unavailable"
                    assert answer.elapsed.total_seconds() < 20
