"""The suite of agents that are servers: what our adapter costs over plain httpx, how soon the first token of a model
arrives, and how soon a request is refused while its agent is down.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from bench.serving import served
from bench.sevenfold import Ports, Sevenfold, run_sevenfold
from bench.suite import Aim, Suite, p95
from sevenfold.adapters.agents.remote.http_agent import HttpAgent
from sevenfold.adapters.agents.remote.upstream import Upstream
from sevenfold.contracts.agents.interface import AgentContext, AgentRequest, Reply

IN_FLIGHT = 20
CALLS = 400
TURNS = 15
STREAMS = 40
REFUSED = 200
PAUSE = 0.02

TIMES = " \N{MULTIPLICATION SIGN}"

CONFIG = """\
default_agent = "instant"

[agents.instant]
kind = "python"
target = "bench.agents:instant"

[agents.model]
kind = "openai"
base_url = "http://127.0.0.1:{port}/v1"
model = "m"

[agents.down]
kind = "http"
url = "http://127.0.0.1:{port}/down"
circuit = {{ open_seconds = 600, max_open_seconds = 600 }}
"""

REQUEST = AgentRequest(run_id="qry_x", task="query", query="hi", context={"customerId": "12345"})


async def _upstreams(_: Sevenfold, work: Path) -> list[float]:
    async with served("bench.upstream", work, "/", 20) as upstream:
        port = upstream.port
        ratio, ours, plain = await _adapter(port)
        config = work / "upstreams.toml"
        config.write_text(CONFIG.format(port=port))
        settings = {"SEVENFOLD_CONFIG": str(config)}
        async with run_sevenfold(work, work / f"upstreams-{port}", Ports.free(), settings) as sevenfold:
            first = await _first_tokens(sevenfold.ports.http, port)
            refused = await _refused(sevenfold.ports.http)
    return [ratio, ours, plain, first, p95(refused)]


async def _adapter(port: int) -> tuple[float, float, float]:
    """A call by our adapter against one by plain httpx, so many in flight, and the milliseconds of both. Taken in
    turn, and compared with what came right before: the machine's pace changes from second to second.
    """
    url = f"http://127.0.0.1:{port}/run"
    agent = HttpAgent(Upstream(url, api_key=None, idle_timeout_seconds=30))
    body = REQUEST.model_dump(mode="json", by_alias=True)
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=30) as client:

        async def ours() -> None:
            context = AgentContext(datetime.now(UTC) + timedelta(seconds=30))
            async for event in agent.run(REQUEST, context):
                if not (isinstance(event, Reply) and event.data):
                    raise RuntimeError(f"the upstream answered {event!r}")

        async def plain() -> None:
            answer = await client.post(url, json=body)
            if not Reply.model_validate(answer.json()).data:
                raise RuntimeError(f"the upstream answered {answer.text}")

        await _loaded(ours)
        await _loaded(plain)
        turns = [
            (statistics.median(await _loaded(ours)), statistics.median(await _loaded(plain))) for _ in range(TURNS)
        ]
    await agent.aclose()
    ratio = statistics.median(one / other for one, other in turns)
    return ratio, statistics.median(one for one, _ in turns), statistics.median(other for _, other in turns)


async def _loaded(call: Callable[[], Awaitable[None]]) -> list[float]:
    """How long each of so many calls took, in ms."""
    left, times = iter(range(CALLS)), []

    async def one_after_the_other() -> None:
        for _ in left:
            start = time.perf_counter()
            await call()
            times.append((time.perf_counter() - start) * 1000)

    await asyncio.gather(*(one_after_the_other() for _ in range(IN_FLIGHT)))
    return times


async def _first_tokens(connection: int, upstream: int) -> float:
    """By how many ms the first token comes later through `/stream` than from the model's server itself: medians."""
    async with httpx.AsyncClient(timeout=30) as client:
        through, itself = [], []
        for number in range(STREAMS + 5):
            one = await _first(
                client, f"http://127.0.0.1:{connection}/api/agent/stream", {"query": "hi", "agent": "model"}
            )
            two = await _first(client, f"http://127.0.0.1:{upstream}/v1/chat/completions", {"model": "m"})
            if number >= 5:
                through.append(one)
                itself.append(two)
    return statistics.median(through) - statistics.median(itself)


async def _first(client: httpx.AsyncClient, url: str, body: dict[str, str]) -> float:
    start = time.perf_counter()
    found = 0.0
    async with client.stream("POST", url, json=body, headers={"Accept": "text/event-stream"}) as answer:
        async for line in answer.aiter_lines():
            if not found and "token 0" in line:
                found = (time.perf_counter() - start) * 1000
    if not found:
        raise RuntimeError(f"{url} never sent a token")
    return found


async def _refused(port: int) -> list[float]:
    """How many ms it takes to be refused, at 50 a second."""
    url, body = f"http://127.0.0.1:{port}/api/agent/query", {"query": "hi", "agent": "down"}
    async with httpx.AsyncClient(timeout=30) as client:
        await asyncio.gather(*(client.post(url, json={**body, "timeout": 2}) for _ in range(8)))
        found = []
        for _ in range(REFUSED):
            start = time.perf_counter()
            answer = await client.post(url, json=body)
            found.append((time.perf_counter() - start) * 1000)
            if answer.status_code != 503 or "circuit-open" not in answer.text:
                raise RuntimeError(f"the API answered {answer.status_code}: {answer.text}")
            await asyncio.sleep(PAUSE)
    return found


UPSTREAMS = Suite(
    "upstreams",
    [
        Aim("a call by the `http` adapter against plain httpx, 20 in flight, p50", TIMES, 1.15, digits=2),
        Aim("p50 of a call by the adapter", " ms", digits=1),
        Aim("p50 of a call by plain httpx", " ms", digits=1),
        Aim("first token of an `openai` agent by `/stream`, later than its server's, p50", " ms", 30, digits=1),
        Aim("refused while the circuit is open, p95", " ms", 15, digits=1),
    ],
    _upstreams,
)
