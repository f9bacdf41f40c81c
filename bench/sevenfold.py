"""Sevenfold itself as a child process: `sevenfold dev` on free ports with the benchmark's agents."""

import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.http_load import Door
from bench.processes import BIN, REPOSITORY, Child, free_ports, until

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

[agents.ticking]
kind = "python"
target = "bench.agents:ticking"
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
    """One running `sevenfold dev`. `seconds` is the time from its start until it said that it is ready."""

    child: Child
    door: Door
    ports: Ports
    data: Path
    seconds: float = field(default=0.0)

    async def query(self) -> None:
        """Send the article's synchronous request once."""
        answer = await self.door.post("/api/agent/query", BODY)
        if answer.get("response") != "ok":
            raise RuntimeError(f"Sevenfold answered {answer!r}")


@contextlib.asynccontextmanager
async def run_sevenfold(
    work: Path, data: Path, ports: Ports, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Sevenfold]:
    """Start `sevenfold dev` with its files in `data`, wait until it is ready, and stop it at the end."""
    config = work / "sevenfold.toml"
    config.write_text(CONFIG)
    environment = {
        "SEVENFOLD_PORT": str(ports.http),
        "SEVENFOLD_TEMPORAL_PORT": str(ports.temporal),
        "SEVENFOLD_TEMPORAL_UI_PORT": str(ports.ui),
        "SEVENFOLD_DATA_DIR": str(data),
        "SEVENFOLD_CONFIG": str(config),
        "PYTHONPATH": str(REPOSITORY),  # the installed command does not look for agents in the repository
        **(settings or {}),
    }
    log = work / f"sevenfold-{ports.http}.log"
    start = time.perf_counter()
    child = Child([BIN / "sevenfold", "dev"], log=log, environment=environment, cwd=REPOSITORY)
    sevenfold = Sevenfold(child, Door(ports.http), ports, data)
    try:
        await until(lambda: sevenfold.door.get("/health/ready"), 60, "sevenfold dev", child)
        sevenfold.seconds = time.perf_counter() - start
        yield sevenfold
    finally:
        await sevenfold.door.close()
        await child.stop(patience=40)
