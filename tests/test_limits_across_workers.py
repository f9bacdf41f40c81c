"""Circuit breakers and limits that two workers and an API share, each a process, and an upstream that counts."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from sevenfold.runtime.config.settings import Settings
from tests.support.processes import EmbeddedTemporalOnly, until
from tests.support.receivers import Answer, Post, Receiver, Send, running_receiver
from tests.support.stack import Sevenfold, http_client, make_settings, sevenfold, until_ready
from tests.support.upstreams import reply_script

OK = reply_script({"response": "well"})


@dataclass
class Processes:
    """An API and its workers, the agents' server, and the agent that a test calls."""

    http: httpx.AsyncClient
    workers: list[Sevenfold]
    upstream: Receiver
    settings: Settings
    agent: str = "served"

    @property
    def posts(self) -> list[Post]:
        """The calls of the agent."""
        return self.upstream.at(f"/{self.agent}")

    def answer_with(self, answer: Answer) -> None:
        """The agent's server answers so from now on."""
        self.upstream.by_path[f"/{self.agent}"] = answer

    async def task(self) -> str:
        answer = await self.http.post("/api/agent/tasks", json={"task": "work", "agent": self.agent})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["taskId"])

    async def status(self, run_id: str) -> str:
        return str((await self.http.get(f"/api/agent/tasks/{run_id}")).json()["status"])

    async def query(self, **body: object) -> httpx.Response:
        return await self.http.post("/api/agent/query", json={"query": "hi", "agent": self.agent, **body})

    async def closed(self) -> bool:
        return await self.state() == "closed"

    async def state(self) -> str:
        items = (await self.http.get("/api/agent/agents")).json()["items"]
        return str(next(item["circuit"]["state"] for item in items if item["name"] == self.agent))


@asynccontextmanager
async def processes(directory: Path, agents: dict[str, str], *, workers: int = 2) -> AsyncIterator[Processes]:
    """An API and workers with these agents; the values are lines of their configuration."""
    async with running_receiver() as upstream:
        config = "\n".join(
            f'[agents.{name}]\nkind = "http"\nurl = "{upstream.url(f"/{name}")}"\n{terms}'
            for name, terms in agents.items()
        )
        settings = make_settings(directory, more_config=config, log_level="warning")
        async with EmbeddedTemporalOnly(settings) as address, http_client(settings.port) as http:
            with ExitStack() as started:
                env = {"TEMPORAL_ADDRESS": address}
                api = started.enter_context(sevenfold("api", settings, **env))
                running = [started.enter_context(sevenfold("worker", settings, **env)) for _ in range(workers)]
                await until_ready(settings.port, process=api)
                yield Processes(http, running, upstream, settings)


PAUSE = 4.0


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Processes]:
    """Processes that no test kills, with an agent for each test."""
    agents = {
        "interrupted": "circuit = {minimum_calls = 5, open_seconds = 2, max_open_seconds = 5}",
        "failing": f"circuit = {{minimum_calls = 4, open_seconds = {PAUSE}, max_open_seconds = {PAUSE}}}",
        "six_at_once": "max_concurrency = 6",
        "one_at_once": "max_concurrency = 1",
        "ten_a_second": 'rate = "10/s"',
    }
    async with processes(tmp_path_factory.mktemp("shared"), agents) as running:
        yield running


async def test_queued_runs_survive_an_agent_outage(shared: Processes) -> None:
    running = replace(shared, agent="interrupted")
    running.answer_with(503)
    started_at = time.monotonic()
    accepting = asyncio.Semaphore(20)

    async def accepted() -> str:
        async with accepting:
            return await running.task()

    ids = await asyncio.gather(*(accepted() for _ in range(80)))
    await asyncio.sleep(max(0.0, started_at + 20 - time.monotonic()))
    assert await running.state() != "closed"
    during = len(running.posts)
    running.answer_with(OK)
    ended: dict[str, int] = {}
    async with asyncio.timeout(120):
        while ended.get("processing", 1):
            await asyncio.sleep(1)
            stats = (await running.http.get("/api/agent/stats")).json()["runs"]
            (work,) = [one for one in stats if one["agent"] == running.agent]
            ended = {"processing": work["open"], "completed": work["completed"], "failed": work["failed"]}
    assert ended == {"processing": 0, "completed": 80, "failed": 0}
    last = (await running.http.get(f"/api/agent/tasks/{ids[-1]}")).json()
    assert last["status"] == "completed"
    # five failures in either worker, what was under way in them by then, and a probe every few seconds
    assert during <= 60
    assert len(running.posts) == during + 80
    assert await running.state() == "closed"


async def test_all_processes_share_one_circuit(shared: Processes) -> None:
    running = replace(shared, agent="failing")
    running.answer_with(500)
    await asyncio.gather(*(running.query() for _ in range(8)))
    assert await running.state() != "closed"
    calls, since = len(running.posts), time.monotonic()

    def probes_at_most() -> float:
        return 2 + (time.monotonic() - since) / PAUSE  # one when it opened, and one after every pause

    answers = [await running.query() for _ in range(20)]
    assert {answer.status_code for answer in answers} == {503}
    let_through = [answer for answer in answers if "runId" in answer.json()]
    assert len(let_through) <= probes_at_most(), "the API answers alone, but for those that probe"
    # 30 runs that wait in both workers: one of them probes at a time
    ids = [await running.task() for _ in range(30)]
    await until(lambda: len(running.posts) > calls, 30)
    await asyncio.sleep(2 * PAUSE)
    assert len(running.posts) - calls <= probes_at_most()
    running.answer_with(OK)
    await until(running.closed, 40)
    for run_id in ids:
        async with asyncio.timeout(40):
            while await running.status(run_id) in ("queued", "processing"):
                await asyncio.sleep(0.2)
    assert (await running.query()).status_code == 200


async def test_killed_probing_worker_does_not_leave_the_circuit_half_open(tmp_path: Path) -> None:
    """The circuit does not stay half-open for ever, and the run that probed goes on."""
    circuit = "circuit = {minimum_calls = 2, open_seconds = 1, max_open_seconds = 2}"
    async with processes(tmp_path, {"served": circuit}) as running:
        running.answer_with(500)
        await asyncio.gather(*(running.query() for _ in range(4)))
        assert await running.state() != "closed"

        async def hangs(send: Send) -> None:
            await asyncio.sleep(90)

        running.answer_with(hangs)
        calls = len(running.posts)
        ids = [await running.task() for _ in range(3)]
        await until(lambda: len(running.posts) > calls, 20)
        for worker in running.workers:
            worker.kill()
        running.answer_with(OK)
        with sevenfold("worker", running.settings, TEMPORAL_ADDRESS=f"127.0.0.1:{running.settings.temporal_port}"):
            async with asyncio.timeout(45):  # well below the time limit of a silent probe
                for run_id in ids:
                    while await running.status(run_id) != "completed":
                        await asyncio.sleep(0.3)
            await until(running.closed)


class Busy:
    """A server that counts how many calls it has at once."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.now = self.most = 0
        self.started_at: list[float] = []

    async def __call__(self, send: Send) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        self.started_at.append(time.monotonic())
        try:
            await asyncio.sleep(self.seconds)
            await OK(send)
        finally:
            self.now -= 1


async def all_completed(running: Processes, ids: list[str], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        for run_id in ids:
            while (status := await running.status(run_id)) in ("queued", "processing"):
                await asyncio.sleep(0.2)
            assert status == "completed"


async def test_max_concurrency_holds_across_workers(shared: Processes) -> None:
    running = replace(shared, agent="six_at_once")
    server = Busy(0.25)
    running.answer_with(server)
    started_at = time.monotonic()
    ids = [await running.task() for _ in range(80)]
    await all_completed(running, ids, 120)
    assert server.most == 6
    assert time.monotonic() - started_at < 40, "3.3 s at best: the places are not left empty"
    assert len(server.started_at) == 80, "waiting is no attempt"


async def test_limit_below_the_number_of_workers_rotates_between_them(shared: Processes) -> None:
    running = replace(shared, agent="one_at_once")
    server = Busy(0.1)
    running.answer_with(server)
    await all_completed(running, [await running.task() for _ in range(30)], 90)
    assert server.most == 1


async def test_rate_limit_holds_across_workers(shared: Processes) -> None:
    running = replace(shared, agent="ten_a_second")
    server = Busy(0.0)
    running.answer_with(server)
    since = time.monotonic()
    await all_completed(running, [await running.task() for _ in range(80)], 90)
    # counted from the first, since calls may be late on a busy machine, and then come together
    assert all(number <= 10 * (at - since) + 6 for number, at in enumerate(server.started_at, 1))
    assert server.started_at[-1] - since < 60


async def test_killed_worker_returns_its_allocation(tmp_path: Path) -> None:
    async with processes(tmp_path, {"served": "max_concurrency = 2"}) as running:
        server = Busy(0.1)
        running.answer_with(server)
        await all_completed(running, [await running.task() for _ in range(20)], 60)
        running.workers[0].kill()
        await all_completed(running, [await running.task() for _ in range(20)], 60)
        assert server.most <= 2


async def test_busy_agent_answers_429_with_retry_after(tmp_path: Path) -> None:
    async with processes(tmp_path, {"served": "max_concurrency = 2"}, workers=1) as running:
        running.answer_with(OK)
        await all_completed(running, [await running.task()], 30)  # its worker has asked for its share
        server = Busy(12)
        running.answer_with(server)
        first = [asyncio.create_task(running.query()) for _ in range(2)]
        await until(lambda: server.now == 2)
        started_at = time.monotonic()
        refused = await running.query()
        assert time.monotonic() - started_at < 8
        assert refused.status_code == 429, refused.text
        assert refused.json()["type"] == "/problems/agent-busy"
        assert int(refused.headers["retry-after"]) >= 1
        queued = await running.task()
        assert {answer.status_code for answer in await asyncio.gather(*first)} == {200}
        await all_completed(running, [queued], 60)
