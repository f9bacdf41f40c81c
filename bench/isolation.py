"""The suite of isolation: one agent's calls in a child process, beside the same calls in this process, in turns."""

import statistics
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.sevenfold import Sevenfold
from bench.suite import Aim, Suite, p95
from sevenfold.adapters.agents.loading import load_agents
from sevenfold.contracts.agents.interface import Agent, AgentContext, AgentRequest
from sevenfold.contracts.config.schema import SevenfoldConfig

CALLS = 500

AGENT = "async def answer(request):\n    return request.query\n"


async def _time(agent: Agent) -> float:
    context = AgentContext(datetime.now(UTC) + timedelta(seconds=60))
    started_at = time.perf_counter()
    async for _ in agent.run(AgentRequest(run_id="qry_bench", task="query", query="hello"), context):
        pass
    return (time.perf_counter() - started_at) * 1_000


async def _isolation(_: Sevenfold, work: Path) -> list[float]:
    (work / "isolation_bench.py").write_text(AGENT)
    section = {"kind": "python", "target": "isolation_bench:answer"}
    sections = {"here": section, "child": {**section, "isolation": "process"}}
    agents = load_agents(SevenfoldConfig.model_validate({"agents": sections}).direct_agents, work, {})
    here, child = agents.get("here"), agents.get("child")
    if here is None or child is None:
        raise RuntimeError("the agents are configured above")
    try:
        first = await _time(child)
        pairs = [(await _time(here), await _time(child)) for _ in range(CALLS)]
    finally:
        await agents.aclose()
    extra = [in_child - in_process for in_process, in_child in pairs]
    return [first, statistics.median(extra), p95(extra)]


ISOLATION = Suite(
    "isolation",
    [
        Aim("the first call of a child process", " ms"),
        Aim("a warm call in a child process, beyond one in this process, median", " ms", 5, digits=2),
        Aim("the same, p95", " ms", digits=2),
    ],
    _isolation,
)
