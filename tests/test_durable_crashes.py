"""kill -9 of workers and APIs of durable agents: what was recorded is not executed again, and no question is lost."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from sevenfold.runtime.config.settings import Settings
from tests.support.processes import EmbeddedTemporalOnly
from tests.support.stack import Sevenfold, http_client, make_settings, sevenfold, until_ready

API = "/api/agent"
CONFIG = (
    '[agents.reckless]\nkind = "python"\ntarget = "tests.support.durable_agents:reckless"\n'
    "circuit = { enabled = false }\n"
)


@dataclass
class Processes:
    """An API and workers, which are started again when their agents have killed them."""

    settings: Settings
    address: str
    stack: ExitStack
    http: httpx.AsyncClient
    worker: Sevenfold
    api: Sevenfold

    def start(self, command: str) -> Sevenfold:
        return self.stack.enter_context(sevenfold(command, self.settings, TEMPORAL_ADDRESS=self.address))

    async def keep_worker(self) -> None:
        """Starts another worker whenever there is none."""
        while True:
            if self.worker.process.poll() is not None:
                self.worker = self.start("worker")
            await asyncio.sleep(0.2)

    async def until(self, run_id: str, *statuses: str, seconds: float = 120) -> dict[str, Any]:
        async with asyncio.timeout(seconds):
            while True:
                run: dict[str, Any] = (await self.http.get(f"{API}/runs/{run_id}")).json()
                if run["status"] in statuses:
                    return run
                await asyncio.sleep(0.2)


@asynccontextmanager
async def processes(directory: Path) -> AsyncIterator[Processes]:
    settings = make_settings(directory, more_config=CONFIG)
    async with EmbeddedTemporalOnly(settings) as address, http_client(settings.port) as http:
        with ExitStack() as stack:
            api = stack.enter_context(sevenfold("api", settings, TEMPORAL_ADDRESS=address))
            worker = stack.enter_context(sevenfold("worker", settings, TEMPORAL_ADDRESS=address))
            await until_ready(settings.port)
            yield Processes(settings, address, stack, http, worker, api)


async def start(http: httpx.AsyncClient, **params: Any) -> str:
    body = {"task": "t", "agent": "reckless", "params": params}
    return str((await http.post(f"{API}/tasks", json=body)).json()["taskId"])


async def test_a_killed_worker_repeats_no_recorded_step(tmp_path: Path) -> None:
    """Several runs at once die again and again, each right after a step of its own was recorded."""
    async with processes(tmp_path) as running:
        logs = [tmp_path / f"log-{n}" for n in range(4)]
        runs = [
            await start(running.http, log=str(log), steps=30, kills=[number * 7]) for number, log in enumerate(logs)
        ]
        keeper = asyncio.create_task(running.keep_worker())
        for run_id in runs:
            assert (await running.until(run_id, "completed", "failed"))["status"] == "completed"
        keeper.cancel()
    for log in logs:
        counts = Counter(log.read_text().splitlines())
        assert set(counts) == {f"step {number}" for number in range(30)}
        # A step that was executed when another run killed the worker may have had no record yet.
        repeated = {line: count for line, count in counts.items() if count > 1}
        assert sum(repeated.values()) - len(repeated) <= len(logs) - 1, repeated


@pytest.mark.parametrize("place", ["asking", "answered"])
async def test_a_killed_worker_loses_no_question_and_no_answer(place: str, tmp_path: Path) -> None:
    async with processes(tmp_path) as running:
        log = tmp_path / "log"
        run_id = await start(running.http, log=str(log), asks=True, kills=[place])
        keeper = asyncio.create_task(running.keep_worker())
        run = await running.until(run_id, "input_required")
        assert [one["id"] for one in run["requests"]] == ["go-on"]
        answer = {"responses": {"go-on": {"action": "accept", "content": True}}}
        assert (await running.http.post(f"{API}/runs/{run_id}/responses", json=answer)).status_code == 200
        run = await running.until(run_id, "completed", "failed")
        keeper.cancel()
    assert run["result"]["data"] == {"answer": True, "turn": 2}, run
    assert Counter(log.read_text().splitlines()) == Counter([*(f"step {n}" for n in range(3)), "step 99"])


async def test_a_waiting_run_outlives_all_processes(tmp_path: Path) -> None:
    async with processes(tmp_path) as running:
        run_id = await start(running.http, log=str(tmp_path / "log"), asks=True)
        await running.until(run_id, "input_required")
        running.worker.kill()
        answer = {"responses": {"go-on": {"action": "accept", "content": True}}}
        refused = await running.http.post(f"{API}/runs/{run_id}/responses", json=answer)
        assert (refused.status_code, refused.json()["type"]) == (503, "/problems/temporal-unavailable")
        assert refused.headers["retry-after"]
        assert (await running.until(run_id, "input_required"))["requests"], "reading it needs no worker"
        running.api.kill()
        running.api, running.worker = running.start("api"), running.start("worker")
        await until_ready(running.settings.port)
        again = await running.http.post(f"{API}/runs/{run_id}/responses", json=answer)
        assert again.status_code in (200, 409), again.text
        assert (await running.until(run_id, "completed"))["result"]["data"]["answer"] is True


@pytest.mark.slow
async def test_a_thousand_waiting_runs_outlive_their_workers(tmp_path: Path) -> None:
    """All can be answered afterwards, and none holds a slot meanwhile."""
    async with processes(tmp_path) as running:
        at_once = asyncio.Semaphore(20)

        async def begin(number: int) -> str:
            async with at_once:
                return await start(running.http, log=str(tmp_path / f"log-{number}"), steps=1, asks=True)

        async def until(run_id: str, status: str) -> None:
            async with at_once:
                await running.until(run_id, status, seconds=300)

        async def answer(run_id: str) -> None:
            async with at_once:
                given = {"responses": {"go-on": {"action": "accept", "content": True}}}
                # For 5 s a run that a dead worker had in its cache is offered to that worker alone.
                for _ in range(3):
                    answered = await running.http.post(f"{API}/runs/{run_id}/responses", json=given)
                    if answered.status_code != 503:
                        break
                assert answered.status_code == 200, answered.text

        runs = await asyncio.gather(*(begin(number) for number in range(1_000)))
        await asyncio.gather(*(until(run_id, "input_required") for run_id in runs))
        for _ in range(2):
            running.worker.kill()
            running.worker = running.start("worker")
            await until_ready(running.settings.port)
        await asyncio.gather(*(answer(run_id) for run_id in runs))
        await asyncio.gather(*(until(run_id, "completed") for run_id in runs))
    assert all((tmp_path / f"log-{n}").read_text() == "step 0\nstep 99\n" for n in range(1_000))
