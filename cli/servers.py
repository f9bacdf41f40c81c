"""What `sevenfold dev`, `api`, `worker` and `connect` run. Importing it takes a second, so only they do."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog
import typer
from fastapi import FastAPI
from pydantic import ValidationError

from sevenfold.adapters.streams.hub import StreamHubs
from sevenfold.api.app import create_app, run_api, serve
from sevenfold.api.components import build_components
from sevenfold.cli.reload import dev_with_reload
from sevenfold.connector import run_connector, running_connector
from sevenfold.contracts.config.schema import SevenfoldConfig
from sevenfold.runtime.config.config_file import load_config
from sevenfold.runtime.config.settings import Settings, uses_own_cluster
from sevenfold.runtime.process.ports import bind
from sevenfold.runtime.secrets.tls import load_tls
from sevenfold.runtime.services import Services, open_services
from sevenfold.runtime.startup import StartupError
from sevenfold.runtime.streams import open_streams
from sevenfold.worker import load_agent_registry, run_worker, running_worker

__all__ = [
    "api_with_worker",
    "dev",
    "dev_with_reload",
    "open_gateway",
    "run_api",
    "run_connector",
    "run_worker",
    "run_worker_and_set_current",
]

log = structlog.get_logger(__name__)


async def dev(settings: Settings, *, ui: bool = False, agent: str | None = None, runs_temporal: bool = True) -> None:
    """Runs everything on this machine, with an embedded Temporal unless TEMPORAL_ADDRESS is set.

    `ui`: with Temporal's UI. `agent`: the target of a python agent, which becomes the default. `runs_temporal`:
    otherwise the embedded Temporal belongs to another process.
    """
    settings = settings.model_copy(
        update={
            "development": settings.development is not False,
            "temporal_ui": ui or settings.temporal_ui,
        }
    )
    config = load_config(settings.config).with_simulator()
    if agent is not None:
        config = _with_default_agent(config, agent)

    def on_ready() -> None:
        _welcome(settings, config)

    embedded = runs_temporal and not uses_own_cluster()
    await _run_together(settings, config, embedded=embedded, on_ready=on_ready)


def _with_default_agent(config: SevenfoldConfig, target: str) -> SevenfoldConfig:
    """Returns the configuration with this agent, named after its module. Raises StartupError."""
    try:
        return config.with_python_agent(target)
    except ValidationError:
        raise StartupError(
            f"--agent {target} is not a valid target. Write it as module:function, such as support:answer."
        ) from None


async def api_with_worker(settings: Settings) -> None:
    """Runs the API and a worker against an existing Temporal."""

    def on_ready() -> None:
        log.info("api listens, worker polls", port=settings.port, task_queue=settings.task_queue)

    await _run_together(settings, load_config(settings.config), embedded=False, on_ready=on_ready)


async def run_worker_and_set_current(settings: Settings) -> None:
    """Runs a worker, and makes its build current if no build is."""
    await run_worker(settings.model_copy(update={"set_current": True}))


async def _run_together(
    settings: Settings, config: SevenfoldConfig, *, embedded: bool, on_ready: Callable[[], None]
) -> None:
    """Runs API and worker in one process, with an embedded Temporal server if `embedded`."""
    settings.check_exposure(has_credentials=config.has_credentials)
    load_tls(settings)  # a mistake is reported before anything starts
    async with open_gateway(settings, config, embedded=embedded) as gateway:
        await serve(gateway.app, gateway.sock, settings, on_ready=on_ready)


@dataclass(frozen=True)
class Gateway:
    """All parts of a gateway in one process; `sock` is bound and not served yet."""

    services: Services
    hubs: StreamHubs
    app: FastAPI
    sock: socket.socket


@asynccontextmanager
async def open_gateway(settings: Settings, config: SevenfoldConfig, *, embedded: bool) -> AsyncIterator[Gateway]:
    """Runs a worker and a connector while the block runs, with an embedded Temporal server if `embedded`.

    The parts start in the order of their dependencies, and stop in reverse.
    """
    agents = load_agent_registry(settings, config)
    async with AsyncExitStack() as stack:
        sock = stack.enter_context(bind(settings.host, settings.port, "SEVENFOLD_PORT"))
        services = await stack.enter_async_context(open_services(settings, config, embedded=embedded))
        hubs = await stack.enter_async_context(open_streams(services, has_local_worker=True))
        await stack.enter_async_context(running_worker(services, agents, hubs))
        find_lost_brokers = await stack.enter_async_context(running_connector(services))
        yield Gateway(services, hubs, create_app(build_components(services, hubs, find_lost_brokers)), sock)


def _welcome(settings: Settings, config: SevenfoldConfig) -> None:
    typer.echo(f"Sevenfold is ready. API docs: {settings.listen_url}/docs")
    if not settings.config.exists():
        typer.echo(f"                    There is no {settings.config} here; `sevenfold init` writes one.")
    names = [f"{name} (default)" if name == config.default_agent else name for name in config.agents]
    typer.echo(f"                    Agents: {', '.join(names)}")
    if settings.ui_url:
        typer.echo(f"                    Temporal UI: {settings.ui_url}")
    elif not uses_own_cluster():
        typer.echo("                    Temporal UI: off; `sevenfold dev --ui` starts it")
    if config.has_credentials:
        typer.echo(
            f"                    Requests need a key or an access token, by {settings.config}; so does /docs."
        )
    typer.echo("Stop with Ctrl-C. Runs are stored and continue at the next start.")
