"""The suite of durable agents: what a step costs, and runs that wait for people."""

import asyncio
import json
import statistics
import time
from pathlib import Path

from bench.processes import family
from bench.sevenfold import Sevenfold
from bench.soak import resident_megabytes
from bench.suite import Aim, Suite

STEPS, ROUNDS = 100, 5
WAITING, AT_ONCE = 1_000, 20

CONFIG = "".join(
    f'[agents.{name}]\nkind = "python"\ntarget = "bench.agents:{name}"\n' for name in ("stepping", "asking")
)


async def _time(sevenfold: Sevenfold, steps: int) -> float:
    body = {"query": "x", "agent": "stepping", "params": {"steps": steps}}
    started_at = time.perf_counter()
    answer = await sevenfold.http_client.post("/api/agent/query", json.dumps(body).encode())
    if answer.get("response") != "ok":
        raise RuntimeError(f"Sevenfold answered {answer!r}")
    return (time.perf_counter() - started_at) * 1_000


async def _steps(sevenfold: Sevenfold, _: Path) -> list[float]:
    turns = [[await _time(sevenfold, count) for count in (0, 1, STEPS)] for _ in range(ROUNDS)]
    none, one, many = (statistics.median(column) for column in zip(*turns, strict=True))
    return [one - none, (many - one) / (STEPS - 1)]


def _megabytes(pid: int) -> float:
    """Of the gateway, without the Temporal server."""
    return sum(resident_megabytes(one) for one in family(pid))


async def _waiting(sevenfold: Sevenfold, _: Path) -> list[float]:
    """Starts the runs, waits until all ask, and answers them; the memory is that of API and worker together."""
    http, turns = sevenfold.http_client, asyncio.Semaphore(AT_ONCE)

    async def start(_: int) -> str:
        async with turns:
            body = {"task": "t", "agent": "asking"}
            return str((await http.post("/api/agent/tasks", json.dumps(body).encode()))["taskId"])

    async def answer(run_id: str) -> None:
        async with turns:
            given = {"responses": {"go-on": {"action": "accept", "content": True}}}
            await http.post(f"/api/agent/runs/{run_id}/responses", json.dumps(given).encode())

    async def until(run_id: str, status: str) -> None:
        while True:
            async with turns:
                found = str((await http.get(f"/api/agent/runs/{run_id}"))["status"])
            if found == status:
                return
            if found == "failed":
                raise RuntimeError(f"{run_id} failed")
            await asyncio.sleep(0.5)

    pid = sevenfold.child.pid
    before = _megabytes(pid)
    runs = await asyncio.gather(*(start(number) for number in range(WAITING)))
    await asyncio.gather(*(until(run_id, "input_required") for run_id in runs))
    gained = _megabytes(pid) - before
    started_at = time.perf_counter()
    await asyncio.gather(*(answer(run_id) for run_id in runs))
    await asyncio.gather(*(until(run_id, "completed") for run_id in runs))
    return [gained * 1_000 / WAITING, WAITING / (time.perf_counter() - started_at)]


STEPS_SUITE = Suite(
    "steps",
    [
        Aim("a run's first step", " ms", digits=1),
        Aim(f"each further step, of {STEPS}", " ms", digits=1),
    ],
    _steps,
    config=CONFIG,
)
WAITING_SUITE = Suite(
    "waiting",
    [
        Aim(f"memory of a run that waits for a person, of {WAITING:,}", " kB"),
        Aim("answers taken, each with the run's end", "/s"),
    ],
    _waiting,
    config=CONFIG,
    # What is kept of a cached workflow is not what waiting costs.
    settings={"SEVENFOLD_MAX_CACHED_WORKFLOWS": "100"},
    rounds=1,
)
