"""kill -9, of each part and of everything: no accepted run is lost, none is doubled, nobody waits for ever."""

import asyncio
import os
import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.processes import EmbeddedTemporalOnly, until
from tests.support.stack import Stack, children_of, http_client, make_settings, running_stack, sevenfold, until_ready


async def ask(http: httpx.AsyncClient, wait: int = 0, key: str | None = None, **body: Any) -> httpx.Response:
    headers = {"Prefer": f"wait={wait}", **({"Idempotency-Key": key} if key else {})}
    return await http.post("/api/agent/query", json={"query": "hi", **body}, headers=headers)


async def until_ended(http: httpx.AsyncClient, run_id: str, seconds: float = 60) -> dict[str, Any]:
    async with asyncio.timeout(seconds):
        while True:
            answer = await http.get(f"/api/agent/runs/{run_id}")
            if answer.status_code == 200 and answer.json()["status"] not in ("queued", "processing"):
                return dict(answer.json())
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("moment", ["while it runs inline", "while it is an activity"])
async def test_killed_workers_run_is_completed_by_another_worker(tmp_path: Path, moment: str) -> None:
    inline_seconds = 3.0 if moment == "while it runs inline" else 0.2
    settings = make_settings(tmp_path, inline_start_seconds=inline_seconds)
    journal = tmp_path / "journal"
    async with EmbeddedTemporalOnly(settings) as address, http_client(settings.port) as http:
        with ExitStack() as processes:
            env = {"TEMPORAL_ADDRESS": address}
            processes.enter_context(sevenfold("api", settings, **env))
            first = processes.enter_context(sevenfold("worker", settings, **env))
            await until_ready(settings.port)
            accepted = await ask(http, agent="careful", params={"seconds": 5, "journal": str(journal)})
            run_id = accepted.json()["queryId"]
            await until(lambda: journal.exists())
            await asyncio.sleep(1.0)
            assert f"{first.process.pid} 1 started" in journal.read_text()
            first.kill()
            second = processes.enter_context(sevenfold("worker", settings, **env))
            run = await until_ended(http, run_id)
    assert run["status"] == "completed", run
    lines = journal.read_text().splitlines()
    assert lines[-1].startswith(f"{second.process.pid} ")
    assert lines[-1].endswith("finished")
    assert len([line for line in lines if line.endswith("finished")]) == 1


async def test_stopping_worker_hands_over_unfinished_calls(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, grace_seconds=4)
    journal = tmp_path / "journal"
    async with EmbeddedTemporalOnly(settings) as address, http_client(settings.port) as http:
        with ExitStack() as processes:
            env = {"TEMPORAL_ADDRESS": address}
            processes.enter_context(sevenfold("api", settings, **env))
            first = processes.enter_context(sevenfold("worker", settings, **env))
            await until_ready(settings.port)
            accepted = await ask(http, agent="careful", params={"seconds": 10, "journal": str(journal)})
            quick = await ask(http, agent="careful", params={"seconds": 1.2})
            await until(lambda: journal.exists())
            await asyncio.sleep(0.7)
            assert await asyncio.to_thread(first.terminate) == 0
            assert "cleaned up" in journal.read_text(), "the agent received the cancellation"
            assert (await http.get(f"/api/agent/runs/{accepted.json()['queryId']}")).json()["status"] == "processing"
            second = processes.enter_context(sevenfold("worker.py", settings, **env))
            assert (await until_ended(http, accepted.json()["queryId"]))["status"] == "completed"
            assert (await until_ended(http, quick.json()["queryId"]))["attempt"] == 1, "it had time to finish"
    assert journal.read_text().splitlines()[-1].startswith(f"{second.process.pid} 2 finished")


async def test_killed_worker_repeats_only_the_job_items_in_flight(tmp_path: Path) -> None:
    concurrency, total, early = 10, 450, 30
    settings = make_settings(tmp_path)
    journal = tmp_path / "journal"
    body = {
        "task": "work",
        "agent": "item",
        "params": {"journal": str(journal)},
        "data": {"items": [f"slow {number}" for number in range(total)]},
        "concurrency": concurrency,
    }
    async with EmbeddedTemporalOnly(settings) as address, http_client(settings.port) as http:
        with ExitStack() as processes:
            env = {"TEMPORAL_ADDRESS": address}
            processes.enter_context(sevenfold("api", settings, **env))
            first = processes.enter_context(sevenfold("worker", settings, **env))
            await until_ready(settings.port)
            job_id = (await http.post("/api/agent/jobs", json=body)).json()["jobId"]
            await until(lambda: journal.exists() and len(journal.read_text().splitlines()) > early)
            first.kill()
            before = journal.read_text().splitlines()
            processes.enter_context(sevenfold("worker", settings, **env))
            assert (await until_ended(http, job_id))["status"] == "completed"
            job = (await http.get(f"/api/agent/jobs/{job_id}")).json()
    calls = Counter(line.split(" ", 2)[2] for line in journal.read_text().splitlines())
    assert early < len(before) < total
    assert len(calls) == total, "every item was worked on"
    assert sum(calls.values()) - total <= concurrency, "and no more was repeated than was in flight"
    assert job["progress"] == {"completed": total, "failed": 0, "total": total, "percent": 100}


async def test_every_run_continues_after_all_processes_were_killed(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    ids: list[str] = []
    async with http_client(settings.port) as http:
        with sevenfold("dev", settings) as first:
            await until_ready(settings.port, process=first)
            done = (await ask(http, wait=20, agent="echo", key="done")).json()
            for number in range(20):
                answer = await ask(http, agent="careful", key=f"run-{number}", params={"seconds": 3})
                assert answer.status_code == 202
                ids.append(answer.json()["queryId"])
            server = children_of(first.process.pid)
            for pid in (*server, first.process.pid):
                os.kill(pid, signal.SIGKILL)
            first.process.wait(10)
        with sevenfold("dev", settings) as second:
            await until_ready(settings.port, process=second)
            runs = await asyncio.gather(*(until_ended(http, run_id) for run_id in ids))
            assert {run["status"] for run in runs} == {"completed"}
            again = await ask(http, wait=20, agent="echo", key="done")
            assert again.headers["Idempotency-Replayed"] == "true"
            assert again.json() == done
            key = await ask(http, wait=20, agent="careful", key="run-7", params={"seconds": 3})
            assert key.json()["queryId"] == ids[7]
            assert second.terminate() == 0


async def test_embedded_server_dies_with_its_killed_parent(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    with sevenfold("dev", settings) as running:
        await until_ready(settings.port, process=running)
        (server,) = children_of(running.process.pid)
        running.kill()
        await until(lambda: not Path(f"/proc/{server}/cmdline").exists())


async def test_killed_temporal_server_restarts_without_loss(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        waiting = asyncio.create_task(
            stack.query(agent="careful", params={"seconds": 5}, headers={"Prefer": "wait=60"})
        )
        await asyncio.sleep(1.5)
        assert stack.server.pid
        os.kill(stack.server.pid, signal.SIGKILL)
        unready = await readiness_becomes(stack, 503)
        assert set(unready.pop("since")) == {"temporal"}
        assert unready == {"status": "failing", "temporal": "Temporal does not answer", "worker": "unknown"}
        meanwhile = await stack.http.post("/api/agent/query", json={"query": "x", "agent": "echo"})
        if meanwhile.status_code == 503:
            assert meanwhile.json()["type"] == "/problems/temporal-unavailable"
            assert int(meanwhile.headers["Retry-After"]) >= 1
        assert (await readiness_becomes(stack, 200))["status"] == "ok"
        answer = await waiting
        assert answer.status_code == 200, answer.text
        assert answer.json()["response"] == "0 1 2 3 4 5 6 7 8 9 "
        assert (await stack.query(agent="echo")).status_code == 200


async def test_without_a_worker_an_api_is_degraded_and_runs_wait(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    env_of = EmbeddedTemporalOnly(settings)
    async with env_of as address, http_client(settings.port) as http:
        with sevenfold("api", settings, TEMPORAL_ADDRESS=address):
            await until_live(settings.port)
            degraded = await http.get("/health/ready")
            assert (degraded.status_code, degraded.json()["status"]) == (200, "degraded")
            assert "sevenfold worker" in degraded.json()["worker"]
            assert set(degraded.json()["since"]) == {"worker"}
            accepted = await ask(http, wait=1, agent="echo")
            assert accepted.status_code == 202
            run_id = accepted.json()["queryId"]
            assert (await http.get(f"/api/agent/runs/{run_id}")).json()["status"] == "queued"
            listed: list[str] = []
            async with asyncio.timeout(20):  # visibility lags
                while listed != [run_id]:
                    items = (await http.get("/api/agent/runs", params={"status": "queued"})).json()["items"]
                    listed = [item["id"] for item in items]
            with sevenfold("worker", settings, TEMPORAL_ADDRESS=address) as worker:
                assert (await until_ended(http, run_id))["status"] == "completed"
                await until_ready(settings.port)
                await asyncio.sleep(5)  # its heartbeats are known by then
                worker.kill()
                async with asyncio.timeout(45):
                    while (await http.get("/health/ready")).json()["status"] == "ok":
                        await asyncio.sleep(0.5)


async def test_run_survives_an_api_killed_before_its_answer(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    journal = tmp_path / "journal"
    body = {"wait": 30, "key": "once", "agent": "careful", "params": {"seconds": 5, "journal": str(journal)}}
    async with EmbeddedTemporalOnly(settings) as address, http_client(settings.port) as http:
        with sevenfold("worker", settings, TEMPORAL_ADDRESS=address):
            with sevenfold("api", settings, TEMPORAL_ADDRESS=address) as api:
                await until_ready(settings.port)
                waiting = asyncio.create_task(ask(http, **body))
                await until(journal.exists, 30)
                api.kill()
                (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
                assert isinstance(outcome, httpx.TransportError), getattr(outcome, "text", outcome)
            with sevenfold("api", settings, TEMPORAL_ADDRESS=address):
                await until_ready(settings.port)
                answer = await ask(http, **body)
                assert answer.status_code == 200
                assert answer.headers["Idempotency-Replayed"] == "true"


async def until_live(port: int) -> None:
    async with asyncio.timeout(30), http_client(port) as http:
        while True:
            try:
                assert (await http.get("/health/live")).json() == {"status": "ok"}
                return
            except httpx.TransportError:
                await asyncio.sleep(0.1)


async def readiness_becomes(stack: Stack, status: int) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while (answer := await stack.http.get("/health/ready")).status_code != status:
            await asyncio.sleep(0.05)
    return dict(answer.json())
