"""`python -m bench.observed_faults`: eight faults, each in a gateway beside a Prometheus with our alerts, and after
how many seconds readiness, a panel's query and an alert show it. Takes up to 16 minutes.
"""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from bench.ports import free_port
from bench.processes import REPOSITORY

BIN = Path(sys.executable).parent
OBSERVABILITY = REPOSITORY / "docker/observability"
API = "/api/agent"
_LIMIT_SECONDS = 900.0


@dataclass
class Gateway:
    """Processes, their ports, and what the fault acts on."""

    folder: Path
    stack: AsyncExitStack
    port: int = field(default_factory=free_port)
    agent_port: int = field(default_factory=free_port)
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    agent_seconds: float = 0.0
    http: httpx.AsyncClient = field(init=False)
    prometheus: httpx.AsyncClient = field(init=False)

    async def run(self, name: str, *command: str | Path, **variables: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *map(str, command), stdout=log, stderr=log, cwd=self.folder, env={**os.environ, **variables}
            )
        self.processes[name] = process
        self.stack.push_async_callback(_end, process)

    def kill(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGKILL)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 20)
        except TimeoutError:
            process.kill()


@dataclass(frozen=True)
class Fault:
    """`inject` causes it; `load` goes on meanwhile. `panel`: a query that is empty before."""

    name: str
    inject: Callable[[Gateway], Awaitable[None]]
    load: Callable[[Gateway], Awaitable[object]]
    panel: str
    alert: str
    config: str = ""
    is_apart: bool = False
    needs: str = ""


async def query(gateway: Gateway, **body: Any) -> None:
    await gateway.http.post(f"{API}/query", json={"query": "hi", "agent": "remote", **body})


async def large(gateway: Gateway) -> None:
    await query(gateway, agent="builtin", context={"text": "x" * 400_000})


async def webhook(gateway: Gateway) -> None:
    hook = {"webhookUrl": f"http://127.0.0.1:{gateway.agent_port}/hook", "webhookSecret": "0123456789abcdef" * 2}
    await query(gateway, agent="builtin", **hook)


async def job(gateway: Gateway) -> None:
    await gateway.http.post(f"{API}/tasks", json={"task": "work", "agent": "builtin"})


async def stream(gateway: Gateway) -> None:
    body = {"query": "hi", "agent": "simulator", "params": {"seconds": 20, "chunks": 40}}
    async with gateway.http.stream("POST", f"{API}/stream", json=body) as answer:
        async for _ in answer.aiter_bytes():
            pass


async def kill_agent(gateway: Gateway) -> None:
    gateway.kill("agent")


async def slow_agent(gateway: Gateway) -> None:
    (gateway.folder / "slow").write_text("70")


async def kill_worker(gateway: Gateway) -> None:
    gateway.kill("worker")


async def stop_worker(gateway: Gateway) -> None:
    gateway.processes["worker"].send_signal(signal.SIGSTOP)


async def kill_nats(gateway: Gateway) -> None:
    gateway.kill("nats")


async def kill_redis(gateway: Gateway) -> None:
    gateway.kill("redis")


async def lose_payloads(gateway: Gateway) -> None:
    payloads = gateway.folder / "data/payloads"
    await asyncio.to_thread(shutil.rmtree, payloads, ignore_errors=True)
    payloads.write_text("not a directory")


_BROKER = """
[brokers.main]
kind = "nats"
url = "nats://127.0.0.1:{nats}"
[[brokers.main.publish]]
to = "o"
filter = {{prefix = {{type = "t."}}}}
"""
_P95 = "histogram_quantile(0.95, sum by (le) (rate(sevenfold_{}_bucket[1m]))) > {}"
_FAILED = 'rate(sevenfold_webhook_attempt_duration_seconds_count{outcome="failed"}[1m]) > 0'
_SLOW = _P95.format("agent_call_duration_seconds", 30)
_WAITING, _OLD = 'max(sevenfold_queue_depth{kind="workflow"}) > 0', "max(sevenfold_queue_oldest_seconds) > 15"
_MISSING = 'sevenfold_dependency_up{dependency="streams"} == 0'
_LOST, _AWAY = "rate(sevenfold_payload_store_errors_total[1m]) > 0", "sevenfold_broker_connected == 0"
FAULTS = [
    Fault("agent down", kill_agent, query, "rate(sevenfold_agent_retries_total[1m]) > 0", "SevenfoldRunsFail"),
    Fault("agent slow", slow_agent, query, _SLOW, "SevenfoldAgentSlow"),
    Fault("no worker", kill_worker, job, _WAITING, "SevenfoldNoWorker", is_apart=True),
    Fault("full queue", stop_worker, job, _OLD, "SevenfoldQueueOld", is_apart=True),
    Fault("receiver down", kill_agent, webhook, _FAILED, "SevenfoldWebhooksFail"),
    Fault("broker away", kill_nats, query, _AWAY, "SevenfoldBrokerDown", _BROKER, needs="nats"),
    Fault("Redis away", kill_redis, stream, _MISSING, "SevenfoldDependencyDown", needs="redis"),
    Fault("payload store away", lose_payloads, large, _LOST, "SevenfoldPayloadStoreFails"),
]

_AGENT = """
import asyncio, pathlib, uvicorn, sys
slow = pathlib.Path("slow")
async def app(scope, receive, send):
    if scope["type"] == "http":
        await asyncio.sleep(float(slow.read_text()) if slow.exists() else 0)
        json = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": json})
        await send({"type": "http.response.body", "body": b'"fine"'})
uvicorn.run(app, port=int(sys.argv[1]), log_level="error", lifespan="off")
"""


async def _start(fault: Fault, gateway: Gateway) -> None:
    folder, nats, redis = gateway.folder, free_port(), free_port()
    (folder / "agent.py").write_text(_AGENT)
    remote = f'[agents.remote]\nkind = "http"\nurl = "http://127.0.0.1:{gateway.agent_port}/"\n'
    remote += "circuit = {enabled = false}\n"
    (folder / "sevenfold.toml").write_text(remote + fault.config.format(nats=nats))
    variables = {
        "SEVENFOLD_PORT": str(gateway.port),
        "SEVENFOLD_TEMPORAL_PORT": str(free_port()),
        "SEVENFOLD_DATA_DIR": str(folder / "data"),
        "SEVENFOLD_ALLOW_LOOPBACK_URLS": "true",
        "SEVENFOLD_WEBHOOK_SCHEDULE": "0,5,30,30,30,30,30,30,30,30",
        "SEVENFOLD_LOG_LEVEL": "warning",
    }
    await gateway.run("agent", sys.executable, folder / "agent.py", str(gateway.agent_port))
    if fault.needs == "nats":
        await gateway.run("nats", "nats-server", "-js", "-a", "127.0.0.1", "-p", str(nats), "-sd", folder / "js")
    if fault.needs == "redis":
        variables["SEVENFOLD_REDIS_URL"] = f"redis://127.0.0.1:{redis}/0"
        await gateway.run("redis", "redis-server", "--port", str(redis), "--save", "", "--bind", "127.0.0.1")
    await asyncio.sleep(1)
    await gateway.run("gateway", BIN / "sevenfold", "dev", **variables)
    await _until(gateway, "ok")
    if fault.is_apart:  # An API and a worker on the server of the first process, whose queue is another.
        shared = {
            **variables,
            "TEMPORAL_ADDRESS": f"127.0.0.1:{variables['SEVENFOLD_TEMPORAL_PORT']}",
            "SEVENFOLD_TASK_QUEUE": "apart",
            "SEVENFOLD_SECRET_KEY": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        }
        gateway.port = free_port()
        gateway.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=120)
        await gateway.run("worker", BIN / "sevenfold", "worker", **shared)
        await gateway.run("api", BIN / "sevenfold", "api", **shared | {"SEVENFOLD_PORT": str(gateway.port)})
        await _until(gateway, "ok")
    await _start_prometheus(gateway)


async def _start_prometheus(gateway: Gateway) -> None:
    config = yaml.safe_load((OBSERVABILITY / "prometheus.yml").read_text())
    config["rule_files"] = [str(OBSERVABILITY / "alerts.yaml")]
    config["scrape_configs"] = [
        {"job_name": "sevenfold-api", "static_configs": [{"targets": [f"127.0.0.1:{gateway.port}"]}]}
    ]
    (gateway.folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    arguments = ("--config.file=prometheus.yml", "--storage.tsdb.path=tsdb", f"--web.listen-address=127.0.0.1:{port}")
    await gateway.run("prometheus", "prometheus", *arguments)
    gateway.prometheus = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=10)


async def _until(gateway: Gateway, status: str) -> None:
    async with asyncio.timeout(90):
        while await _readiness(gateway) != status:  # noqa: ASYNC110  (another process)
            await asyncio.sleep(0.2)


async def _readiness(gateway: Gateway) -> str:
    with suppress(httpx.HTTPError):
        return str((await gateway.http.get("/health/ready")).json()["status"])
    return "no answer"


async def _shows(gateway: Gateway, expression: str) -> bool:
    with suppress(httpx.HTTPError):
        found = await gateway.prometheus.get("query", params={"query": expression})
        return bool(found.json()["data"]["result"])
    return False


async def _fires(gateway: Gateway, alert: str) -> bool:
    return await _shows(gateway, f'ALERTS{{alertname="{alert}", alertstate="firing"}}')


async def observe(fault: Fault, folder: Path) -> str:
    """Returns the fault's line of the table."""
    folder.mkdir()  # noqa: ASYNC240
    async with AsyncExitStack() as stack:
        gateway = Gateway(folder, stack)
        gateway.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=120)
        await _start(fault, gateway)
        load = asyncio.create_task(_keep_loading(fault, gateway))
        stack.callback(load.cancel)
        await asyncio.sleep(45)
        if await _shows(gateway, fault.panel):
            raise RuntimeError(f"{fault.name} is shown before it happens")
        await fault.inject(gateway)
        seconds = await _measure(fault, gateway)
    return f"| {fault.name} | {seconds['ready']} | {seconds['panel']} | `{fault.alert}`: {seconds['alert']} |"


async def _keep_loading(fault: Fault, gateway: Gateway) -> None:
    running: set[asyncio.Task[object]] = set()
    while True:
        if len(running) < 40:
            task = asyncio.create_task(_ignore(fault.load(gateway)))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.sleep(1)


async def _ignore(work: Awaitable[object]) -> object:
    with suppress(httpx.HTTPError):
        return await work
    return None


async def _measure(fault: Fault, gateway: Gateway) -> dict[str, str]:
    started_at, seen = time.monotonic(), {"ready": "", "panel": "", "alert": ""}
    while time.monotonic() - started_at < _LIMIT_SECONDS and not (seen["panel"] and seen["alert"]):
        elapsed = f"{time.monotonic() - started_at:.0f} s"
        if not seen["ready"] and (status := await _readiness(gateway)) != "ok":
            seen["ready"] = f"`{status}` after {elapsed}"
        if not seen["panel"] and await _shows(gateway, fault.panel):
            seen["panel"] = elapsed
        if not seen["alert"] and await _fires(gateway, fault.alert):
            seen["alert"] = elapsed
        await asyncio.sleep(1)
    return {name: text or ("`ok`" if name == "ready" else "not within 15 min") for name, text in seen.items()}


async def main() -> None:
    work = Path(tempfile.mkdtemp(prefix="sevenfold-observed-"))
    names = sys.argv[1:]
    chosen = [fault for fault in FAULTS if not names or fault.name in names]
    tasks = [observe(fault, work / str(number)) for number, fault in enumerate(chosen)]
    for line in await asyncio.gather(*tasks, return_exceptions=True):
        print(line if isinstance(line, str) else repr(line))


if __name__ == "__main__":
    asyncio.run(main())
