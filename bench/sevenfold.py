"""Sevenfold itself as child processes: `dev` on free ports with the benchmark's agents, or worker and API apart."""

import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.http_load import HttpClient, bearer
from bench.ports import free_ports
from bench.processes import BIN, REPOSITORY, Child, until

CONFIG = """\
default_agent = "instant"

[agents.instant]
kind = "python"
target = "bench.agents:instant"

[agents.twenty]
kind = "python"
target = "bench.agents:twenty"

[agents.fifty]
kind = "python"
target = "bench.agents:fifty"

[agents.second]
kind = "python"
target = "bench.agents:second"

[agents.ticking]
kind = "python"
target = "bench.agents:ticking"

[agents.speaking]
kind = "python"
target = "bench.agents:speaking"

[agents.telling]
kind = "python"
target = "bench.agents:telling"

[agents.noting]
kind = "python"
target = "bench.agents:noting"

[agents.recording]
kind = "python"
target = "bench.agents:recording"
"""
BODY = b'{"query": "hi"}'


@dataclass(frozen=True)
class Ports:
    """The three ports of one embedded stack."""

    http: int
    temporal: int
    ui: int

    @classmethod
    def free(cls) -> "Ports":
        """Pick three free ones."""
        return cls(*free_ports(3))


@dataclass
class Sevenfold:
    """One running `sevenfold dev`. `seconds` is the time from its start until it was ready."""

    child: Child
    http_client: HttpClient
    ports: Ports
    data: Path
    seconds: float = field(default=0.0)

    async def query(self) -> None:
        """Send the article's synchronous request once."""
        answer = await self.http_client.post("/api/agent/query", BODY)
        if answer.get("response") != "ok":
            raise RuntimeError(f"Sevenfold answered {answer!r}")


@contextlib.asynccontextmanager
async def run_sevenfold(
    work: Path,
    data: Path,
    ports: Ports,
    settings: Mapping[str, str] | None = None,
    config: str = "",
    api_key: str | None = None,
    command: Sequence[str | Path] = (BIN / "sevenfold", "dev"),
) -> AsyncIterator[Sevenfold]:
    """Start `sevenfold dev` with its files in `data`, wait until it is ready, and stop it at the end. `config`:
    further lines of its configuration.
    """
    environment = {
        **_environment(work, ports.http, data, config),
        "SEVENFOLD_TEMPORAL_PORT": str(ports.temporal),
        "SEVENFOLD_TEMPORAL_UI_PORT": str(ports.ui),
        **(settings or {}),
    }
    log = work / f"sevenfold-{ports.http}.log"
    start = time.perf_counter()
    child = Child([*command], log=log, environment=environment, cwd=REPOSITORY)
    sevenfold = Sevenfold(child, HttpClient(ports.http, bearer(api_key) if api_key else ""), ports, data)
    try:
        await until(lambda: sevenfold.http_client.get("/health/ready"), 60, "sevenfold dev", child)
        sevenfold.seconds = time.perf_counter() - start
        yield sevenfold
    finally:
        await sevenfold.http_client.close()
        await child.stop(timeout_seconds=40)


@dataclass(frozen=True)
class Apart:
    """A worker and an API that share nothing but the Temporal server (and a Redis, if they have one)."""

    worker: Child
    api: Child
    port: int


@contextlib.asynccontextmanager
async def run_apart(
    work: Path, sevenfold: Sevenfold, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Apart]:
    """Start `sevenfold worker` and `sevenfold api` on the server of a `sevenfold dev`, beside its own two."""
    (port,) = free_ports(1)
    environment = {
        **_environment(work, port, work / f"apart-{port}"),
        "TEMPORAL_ADDRESS": f"127.0.0.1:{sevenfold.ports.temporal}",
        "SEVENFOLD_TASK_QUEUE": f"bench-{port}",
        **(settings or {}),
    }
    children: list[Child] = []
    connection = HttpClient(port)
    try:
        for command in ("worker", "api"):
            log = work / f"{command}-{port}.log"
            children.append(Child([BIN / "sevenfold", command], log=log, environment=environment, cwd=REPOSITORY))
        apart = Apart(*children, port)
        for child in children:
            await until(lambda: _check_ready(connection), 60, "sevenfold worker with sevenfold api", child)
        yield apart
    finally:
        await connection.close()
        for child in reversed(children):
            await child.stop(timeout_seconds=40)


async def _check_ready(connection: HttpClient) -> None:
    """Raises unless a worker polls too: without one, an API alone is `degraded`."""
    ready = await connection.get("/health/ready")
    if ready["status"] != "ok":
        raise RuntimeError(f"not ready: {ready}")


def _environment(work: Path, port: int, data: Path, more: str = "") -> dict[str, str]:
    config = work / "sevenfold.toml"
    config.write_text(f"{CONFIG}\n{more}")
    return {
        "SEVENFOLD_PORT": str(port),
        "SEVENFOLD_DATA_DIR": str(data),
        "SEVENFOLD_CONFIG": str(config),
        "PYTHONPATH": str(REPOSITORY),  # the installed command does not look for agents in the repository
    }
