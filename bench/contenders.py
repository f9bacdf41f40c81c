"""Everything that is measured side by side, and how each of them is started."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from temporalio.client import Client

from bench.bare_client import DEFAULT, TUNED, TUNED_LOCAL, Variant, open_bare
from bench.environment import peers_bin, redis_server
from bench.harness import Call, Contender
from bench.http_load import HttpClient
from bench.ports import free_ports
from bench.processes import BIN, REPOSITORY, Child, until
from bench.sevenfold import BODY, Ports, run_sevenfold

INLINE_OFF = {"SEVENFOLD_INLINE_START_SECONDS": "0"}


@dataclass(frozen=True)
class Stage:
    """Where the contenders work: a folder for their files, and the Temporal server that they share.

    `address` is Sevenfold's embedded server unless the command line named another one.
    """

    work: Path
    ports: Ports
    address: str


def all_contenders(stage: Stage) -> list[Contender]:
    """Return the contenders in the order of the report. Sevenfold is first: its server serves the bare clients."""
    regular = _sevenfold(stage, "sevenfold-regular", Ports.free(), INLINE_OFF)
    return [
        Contender("sevenfold", "Sevenfold over HTTP", _sevenfold(stage, "sevenfold", stage.ports, {})),
        Contender("sevenfold-regular", "Sevenfold over HTTP, regular activity", regular),
        Contender("bare", "bare client, same server", _bare(stage, DEFAULT)),
        Contender("bare-plain", "bare client, plain `start-dev --db-filename`", _plain(stage)),
        Contender("bare-tuned", "bare client, same server, tuned", _bare(stage, TUNED)),
        Contender("bare-tuned-local", "bare client, same server, tuned, local activity", _bare(stage, TUNED_LOCAL)),
        Contender("celery", "FastAPI + Celery + Redis", _celery(stage)),
        Contender("dbos", "FastAPI + DBOS on SQLite", _dbos(stage)),
    ]


@contextlib.asynccontextmanager
async def _sevenfold(stage: Stage, name: str, ports: Ports, settings: Mapping[str, str]) -> AsyncIterator[Call]:
    async with run_sevenfold(stage.work, stage.work / name, ports, settings) as sevenfold:
        yield sevenfold.query


@contextlib.asynccontextmanager
async def _bare(stage: Stage, variant: Variant) -> AsyncIterator[Call]:
    async with open_bare(stage.address, variant, stage.work) as call:
        yield call


@contextlib.asynccontextmanager
async def _plain(stage: Stage) -> AsyncIterator[Call]:
    """Yield the bare client on a development server as its documentation starts it, with a database file."""
    port = free_ports(1)[0]
    address = f"127.0.0.1:{port}"
    argv: list[str | Path] = [BIN / "temporal", "server", "start-dev", "--headless", "--port", str(port)]
    argv += ["--db-filename", stage.work / "plain.db", "--log-level", "error"]
    server = Child(argv, log=stage.work / "plain.log", cwd=stage.work)
    try:
        await until(lambda: Client.connect(address), 30, "temporal server start-dev", server)
        async with open_bare(address, DEFAULT, stage.work) as call:
            yield call
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def _celery(stage: Stage) -> AsyncIterator[Call]:
    redis_port, port = free_ports(2)
    redis: list[str | Path] = [redis_server(), "--port", str(redis_port), "--bind", "127.0.0.1", "--dir", stage.work]
    commands = await peers_bin()
    celery: list[str | Path] = [commands / "celery", "-A", "bench.peers.celery_app:celery"]
    environment = {"BENCH_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0"}
    worker = [*celery, "worker", "--loglevel", "WARNING"]
    async with contextlib.AsyncExitStack() as stack:
        broker = Child(redis, log=stage.work / "redis.log", cwd=stage.work)
        stack.push_async_callback(broker.stop)
        tasks = Child(worker, log=stage.work / "celery.log", environment=environment, cwd=REPOSITORY)
        stack.push_async_callback(tasks.stop)
        argv = _uvicorn(commands, "bench.peers.celery_app:app", port)
        yield await stack.enter_async_context(_client(stage, "celery-api", argv, port, environment))


@contextlib.asynccontextmanager
async def _dbos(stage: Stage) -> AsyncIterator[Call]:
    port = free_ports(1)[0]
    argv = _uvicorn(await peers_bin(), "bench.peers.dbos_app:app", port)
    environment = {"BENCH_DBOS_FILE": str(stage.work / "dbos.sqlite")}
    async with _client(stage, "dbos-api", argv, port, environment) as call:
        yield call


@contextlib.asynccontextmanager
async def _client(
    stage: Stage, name: str, argv: list[str | Path], port: int, environment: Mapping[str, str]
) -> AsyncIterator[Call]:
    """Yield `POST /run` of a peer's HTTP server, once `GET /ready` answers."""
    child = Child(argv, log=stage.work / f"{name}.log", environment=environment, cwd=REPOSITORY)
    connection = HttpClient(port)

    async def call() -> None:
        answer = await connection.post("/run", BODY)
        if answer["response"] != "ok":
            raise RuntimeError(f"{name} answered {answer!r}")

    try:
        await until(lambda: connection.get("/ready"), 40, name, child)
        yield call
    finally:
        await connection.close()
        await child.stop()


def _uvicorn(commands: Path, app: str, port: int) -> list[str | Path]:
    return [commands / "uvicorn", app, "--port", str(port), "--log-level", "warning", "--no-access-log"]
