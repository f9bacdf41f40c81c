"""The product as tests run it: in this process on free ports, or as processes of its own that can be killed."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
from pydantic import SecretStr
from temporalio.client import Client

from bench.ports import free_port
from sevenfold.adapters.streams.hub import StreamHubs
from sevenfold.api.app import create_app, serve
from sevenfold.api.components import Components, build_components
from sevenfold.cli.servers import open_gateway
from sevenfold.contracts.config.schema import SevenfoldConfig
from sevenfold.runtime.config.config_file import load_config
from sevenfold.runtime.config.settings import Settings
from sevenfold.runtime.process.ports import bind
from sevenfold.runtime.services import Services, build_services
from sevenfold.runtime.streams import open_streams
from sevenfold.runtime.temporal.embedded import EmbeddedTemporal
from tests.support.fork_server import ForkedProcess, fork_server

ROOT = Path(__file__).parents[2]

CONFIG = "\n".join(
    ["[agents.simulator]", 'kind = "simulator"']
    + [
        # They fail on request: failures of one test must not open a circuit for another.
        f'[agents.{name}]\nkind = "python"\ntarget = "tests.support.agents:{name}"\ncircuit = {{enabled = false}}'
        for name in (
            "echo",
            "listener",
            "careful",
            "stubborn",
            "flaky",
            "hopeless",
            "picky",
            "down",
            "limited",
            "silent",
            "garbled",
            "item",
            "teller",
            "torn",
            "whole_at_last",
            "torn_once",
            "deriver",
            "witness",
            "choosy",
            "quoting",
            "clerk",
        )
    ]
)


def make_settings(directory: Path, *, more_config: str = "", **changes: object) -> Settings:
    """Settings on free ports, with the tests' agents and a test's own configuration beside them."""
    config = directory / "sevenfold.toml"
    config.write_text(f"{CONFIG}\n{more_config}", encoding="utf-8")
    values: dict[str, object] = {
        "port": free_port(),
        "temporal_port": free_port(),
        "temporal_ui_port": free_port(),
        "data_dir": directory / "data",
        "config": config,
        "grace_seconds": 2,
        "allow_loopback_urls": True,
        "webhook_schedule": (0, 0.2, 0.4),
        **changes,
    }
    return Settings(**values)  # type: ignore[arg-type]


@dataclass
class Stack:
    """A running product and a client to it."""

    services: Services
    http: httpx.AsyncClient
    streams: StreamHubs

    @property
    def settings(self) -> Settings:
        return self.services.settings

    @property
    def config(self) -> SevenfoldConfig:
        return self.services.config

    @property
    def temporal(self) -> Client:
        return self.services.client

    @property
    def server(self) -> EmbeddedTemporal:
        assert self.services.server is not None
        return self.services.server

    async def query(
        self, query: str = "hi", *, headers: dict[str, str] | None = None, **body: object
    ) -> httpx.Response:
        return await self.http.post("/api/agent/query", json={"query": query, **body}, headers=headers or {})

    async def run(self, run_id: str) -> dict[str, object]:
        answer = await self.http.get(f"/api/agent/runs/{run_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def run_until(self, run_id: str, *statuses: str, seconds: float = 20) -> dict[str, object]:
        """Reads the run until it has one of the statuses."""
        async with asyncio.timeout(seconds):
            while (run := await self.run(run_id))["status"] not in statuses:
                await asyncio.sleep(0.05)
        return run


@asynccontextmanager
async def running_stack(directory: Path, *, more_config: str = "", **changes: object) -> AsyncIterator[Stack]:
    """What `sevenfold dev` composes, in this process."""
    settings = make_settings(directory, more_config=more_config, **changes)
    config = load_config(settings.config)
    async with (
        open_gateway(settings, config, embedded=True) as gateway,
        served(gateway.app, gateway.sock, settings),
        http_client(settings.port) as http,
    ):
        yield Stack(gateway.services, http, gateway.hubs)


def components_of(stack: Stack, client: Client, **changes: object) -> Components:
    """Components of another API over the same product, with changed settings."""
    services = build_services(stack.settings.model_copy(update=changes), stack.config, client)
    return build_components(services, StreamHubs(stack.streams.log, has_local_worker=False))


@asynccontextmanager
async def another_api(stack: Stack) -> AsyncIterator[Stack]:
    """The same product behind another API, which has no worker beside it."""
    settings = stack.settings.model_copy(update={"port": free_port()})
    async with AsyncExitStack() as client:
        sock = client.enter_context(bind(settings.host, settings.port, "SEVENFOLD_PORT"))
        services = build_services(settings, stack.config, stack.temporal)
        streams = await client.enter_async_context(open_streams(services, has_local_worker=False))
        await client.enter_async_context(served(create_app(build_components(services, streams)), sock, settings))
        http = await client.enter_async_context(http_client(settings.port))
        yield Stack(replace(services, server=stack.server), http, streams)


@asynccontextmanager
async def served(app: object, sock: socket.socket, settings: Settings) -> AsyncIterator[None]:
    """An app behind a real uvicorn."""
    ready = asyncio.Event()
    serving = asyncio.create_task(serve(app, sock, settings, on_ready=ready.set))  # type: ignore[arg-type]
    try:
        await ready.wait()
        yield
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


def http_client(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        timeout=90,
        trust_env=False,
        limits=httpx.Limits(max_connections=200),
    )


@dataclass
class Sevenfold:
    """`sevenfold …` as a process of its own."""

    process: subprocess.Popen[bytes] | ForkedProcess
    log: Path

    def kill(self) -> None:
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """The variables under which a process has these settings."""
    values = {
        f"SEVENFOLD_{name.upper()}": _written(value)
        for name, value in settings.model_dump().items()
        if value is not None
    }
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SEVENFOLD_", "TEMPORAL_"))}
    return {**kept, **values, "PYTHONPATH": str(ROOT), **more}


def _written(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


@contextmanager
def sevenfold(
    command: str, settings: Settings, *options: str, source: Path = ROOT, **more: str
) -> Iterator[Sevenfold]:
    """Starts `sevenfold <command>`, or `python <file>.py`, of the sources in `source`; ends it, whatever became of
    it.
    """
    folder, variables = settings.config.parent, environment(settings, PYTHONPATH=str(source), **more)
    log = folder / f"{Path(command).name}-{free_port()}.log"
    process: subprocess.Popen[bytes] | ForkedProcess
    with log.open("wb") as output:
        if command.endswith(".py") or source != ROOT:
            program = [str(source / command)] if command.endswith(".py") else ["-m", "sevenfold", command]
            arguments = [sys.executable, *program, *options]
            process = subprocess.Popen(arguments, env=variables, stdout=output, stderr=output, cwd=folder)
        else:
            process = fork_server().start([command, *options], env=variables, cwd=folder, output=output)
    running = Sevenfold(process, log)
    try:
        yield running
    finally:
        if process.poll() is None:
            running.kill()


async def until_ready(port: int, *, seconds: float = 90, process: Sevenfold | None = None) -> None:
    """Waits until /health/ready misses nothing: an API without a worker is only `degraded`."""
    async with asyncio.timeout(seconds), http_client(port) as http:
        while True:
            if process is not None and process.process.poll() is not None:
                raise AssertionError(f"it ended with {process.process.returncode}:\n{process.output()}")
            with suppress(httpx.TransportError):
                if (await http.get("/health/ready")).json()["status"] == "ok":
                    return
            await asyncio.sleep(0.1)


def children_of(pid: int) -> list[int]:
    """The child processes of a process (Linux)."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
