"""The product under test as processes: a Temporal server, two APIs, two workers, and what a phase needs."""

import asyncio
import base64
import secrets
import shutil
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from temporalio.client import Client
from temporalio.service import RPCError

from bench.faults.agents import JOURNAL
from bench.faults.brokers import IN_TYPE, INBOUND, OUT_TYPE, OUTBOUND
from bench.faults.flaky_proxy import FlakyProxy, flaky_proxy
from bench.faults.ledger import Ledger
from bench.faults.parts import Part
from bench.ports import free_port
from bench.processes import REPOSITORY
from sevenfold.runtime.temporal.embedded import find_binary
from sevenfold.runtime.temporal.embedded_flags import ENVIRONMENT, server_arguments

AGENTS = ("word", "worker", "item", "reader", "reactor", "speaker")
BIN = Path(sys.executable).parent

# A receiver that is away for a while is waited for; the pauses before each attempt, in seconds.
_WEBHOOK_SCHEDULE = "0,0.5,1,2" + 20 * ",3"


@dataclass
class Stack:
    """All processes, in the order in which they have to be started."""

    work: Path
    data: Path
    ledger: Ledger
    temporal: Part
    address: str
    proxy: FlakyProxy
    ports: list[int]
    apis: list[Part]
    workers: list[Part]
    connector: Part | None = None
    nats: Part | None = None
    nats_url: str = ""
    redis: Part | None = None
    # Those that a fault holds down.
    down: set[str] = field(default_factory=set)

    @property
    def product(self) -> list[Part]:
        """The processes of the product itself."""
        return [*self.workers, *self.apis, *([self.connector] if self.connector else [])]

    @property
    def stores(self) -> list[Part]:
        """What the product talks to."""
        return [part for part in (self.temporal, self.nats, self.redis) if part is not None]

    async def start(self) -> None:
        """Start all that does not run, those that others need first."""
        for part in self.stores:
            if not part.running:
                part.start()
        await self.until_temporal_answers()
        for part in self.product:
            if not part.running:
                part.start()

    async def until_temporal_answers(self, seconds: float = 60) -> None:
        """Wait for the server, which is started again if it ends."""
        async with asyncio.timeout(seconds):
            while True:
                with suppress(RPCError, RuntimeError, TimeoutError):
                    client = await Client.connect(self.address)
                    if await client.service_client.check_health():
                        return
                if not self.temporal.running:
                    self.ledger.note(f"temporal ended with {self.temporal.exit_code}: {self.temporal.tail()}")
                    self.temporal.start()
                await asyncio.sleep(0.2)

    async def until_ready(self, seconds: float = 90) -> None:
        """Wait until every API is ready."""
        async with asyncio.timeout(seconds), httpx.AsyncClient(trust_env=False) as http:
            for port in self.ports:
                while not await _is_ready(http, port):
                    await self.revive()
                    await asyncio.sleep(0.2)

    async def revive(self) -> None:
        """Start again what ended by itself, as a supervisor would."""
        for part in (*self.stores, *self.product):
            if part.running or part.name in self.down:
                continue
            self.ledger.note(f"{part.name} ended by itself with {part.exit_code}: {part.tail()}")
            if part in self.product:
                await self.until_temporal_answers()
            if not part.running:
                part.start()

    async def watch(self) -> None:
        """Be that supervisor, until cancelled."""
        while True:
            await asyncio.sleep(1)
            with suppress(TimeoutError):
                await self.revive()

    async def stop(self) -> None:
        """End everything, in reverse."""
        self.proxy.calm()
        codes = await asyncio.gather(*(part.terminate() for part in self.product))
        for part, code in zip(self.product, codes, strict=True):
            if code != 0:
                self.ledger.note(f"{part.name} was stopped at the end and exited with {code}: {part.tail()}")
        for part in self.stores:
            await part.terminate(15)


async def _is_ready(http: httpx.AsyncClient, port: int) -> bool:
    with suppress(httpx.TransportError):
        # Without a worker, an API alone is `degraded`.
        answer = await http.get(f"http://127.0.0.1:{port}/health/ready", timeout=5)
        return bool(answer.json()["status"] == "ok")
    return False


@dataclass(frozen=True)
class Plan:
    """What a stack is made of."""

    with_broker: bool = False
    with_redis: bool = False
    data: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@asynccontextmanager
async def running_stack(work: Path, plan: Plan, ledger: Ledger) -> AsyncIterator[Stack]:
    """Start a stack with its files in `work`; the second API, worker and connector reach Temporal by the proxy."""
    data = plan.data or work / "data"
    data.mkdir(parents=True, exist_ok=True)
    temporal_port, ui_port, proxy_port = free_port(), free_port(), free_port()
    address = f"127.0.0.1:{temporal_port}"
    arguments = server_arguments(temporal_port, ui_port, data / "temporal.db")
    temporal = Part("temporal", [find_binary(), *arguments], environment=ENVIRONMENT, work=work)
    nats, nats_url = _nats(work) if plan.with_broker else (None, "")
    redis, redis_url = _redis(work) if plan.with_redis else (None, "")
    (work / "sevenfold.toml").write_text(_config(nats_url))
    environment = {**_environment(work, data, redis_url), **plan.environment}
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(flaky_proxy(address, proxy_port))
        ports = [free_port(), free_port()]

        def part(command: str, name: str, at: str, ready: str, port: int = 0, *options: str) -> Part:
            more = {"TEMPORAL_ADDRESS": at, **({"SEVENFOLD_PORT": str(port)} if port else {})}
            made = {**environment, **more}
            return Part(name, [BIN / "sevenfold", command, *options], environment=made, work=work, ready=ready)

        both = (address, proxy.address)
        running = Stack(
            work,
            data,
            ledger,
            temporal,
            address,
            proxy,
            ports,
            # one alone, and one whose streams pass through its own memory
            [
                part("api", "api-0", both[0], "api listens", ports[0]),
                part("api", "api-1", both[1], "api listens", ports[1], "--with-worker"),
            ],
            [part("worker", f"worker-{n}", both[n], "worker polls") for n in (0, 1)],
            part("connect", "connector", proxy.address, "connector runs") if plan.with_broker else None,
            nats,
            nats_url,
            redis,
        )
        stack.push_async_callback(running.stop)
        await running.start()
        began = time.monotonic()
        await running.until_ready()
        for one in running.product:
            await one.until_up()
        print(f"  the stack was ready after {time.monotonic() - began:.1f} s", flush=True)
        yield running


def _nats(work: Path) -> tuple[Part, str]:
    port = free_port()
    argv = [shutil.which("nats-server") or "nats-server", "-js", "-sd", work / "nats", "-a", "127.0.0.1", "-p"]
    return Part("nats", [*argv, str(port)], environment={}, work=work), f"nats://127.0.0.1:{port}"


def _redis(work: Path) -> tuple[Part, str]:
    port = free_port()
    (work / "redis").mkdir(exist_ok=True)
    argv = [shutil.which("redis-server") or "redis-server", "--bind", "127.0.0.1", "--port", str(port)]
    argv += ["--dir", str(work / "redis"), "--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    return Part("redis", argv, environment={}, work=work), f"redis://127.0.0.1:{port}/0"


def _environment(work: Path, data: Path, redis_url: str) -> dict[str, str]:
    return {
        "SEVENFOLD_DATA_DIR": str(data),
        "SEVENFOLD_CONFIG": str(work / "sevenfold.toml"),
        "SEVENFOLD_ALLOW_LOOPBACK_URLS": "true",
        "SEVENFOLD_WEBHOOK_SCHEDULE": _WEBHOOK_SCHEDULE,
        "SEVENFOLD_SECRET_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
        "SEVENFOLD_GRACE_SECONDS": "5",
        JOURNAL: str(work / "journal"),
        "PYTHONPATH": str(REPOSITORY),
        **({"SEVENFOLD_REDIS_URL": redis_url} if redis_url else {}),
    }


def _config(nats_url: str) -> str:
    lines = ['default_agent = "word"']
    for name in AGENTS:
        lines += [f"[agents.{name}]", 'kind = "python"', f'target = "bench.faults.agents:{name}"']
    if nats_url:
        lines += ["[[subscriptions]]", 'name = "by-broker"', f'filter = {{ exact = {{ type = "{IN_TYPE}" }} }}']
        lines += ['agent = "reactor"', 'task = "react"', f'publishes = "{OUT_TYPE}"']
        lines += ["[brokers.main]", 'kind = "nats"', f'url = "{nats_url}"']
        lines += ["[[brokers.main.consume]]", f'from = "{INBOUND}"']
        lines += [
            "[[brokers.main.publish]]",
            f'filter = {{ exact = {{ type = "{OUT_TYPE}" }} }}',
            f'to = "{OUTBOUND}"',
        ]
    return "\n".join(lines) + "\n"
