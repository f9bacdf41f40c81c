"""The `sevenfold` command."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Annotated

import structlog
import typer

from adapters.console.demo_command import run_demo
from adapters.console.recommend_command import recommend_pattern
from adapters.console.stats_command import show_stats
from adapters.webhooks.verify_command import verify_webhook
from api.main import build_gateway, create_app, run_api, serve
from connector import run_connector, running_connector
from contracts.config import SevenfoldConfig
from runtime.command import run
from runtime.config_file import load_config
from runtime.ports import bind
from runtime.services import open_services
from runtime.settings import Settings, uses_own_cluster
from runtime.streams import open_streams
from worker import load_agent_registry, run_worker, running_worker

log = structlog.get_logger(__name__)

app = typer.Typer(
    help="Sevenfold, an agent integration gateway: one agent, seven patterns, every one durable.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def dev() -> None:
    """Starts everything on this machine: Temporal with its UI, the API and a worker.

    With TEMPORAL_ADDRESS set, the API and a worker against that Temporal.
    """
    run(_dev)


@app.command()
def api(
    with_worker: Annotated[
        bool,
        typer.Option("--with-worker", help="A worker in the same process: streams then pass through its memory."),
    ] = False,
) -> None:
    """Starts the API; as many as needed."""
    run(_api_with_worker if with_worker else run_api)


@app.command()
def worker() -> None:
    """Starts a worker alone; as many as needed."""
    run(run_worker)


@app.command()
def connect() -> None:
    """Connects to the brokers of the configuration: events in and out; as many as needed."""
    run(run_connector)


app.command()(verify_webhook)
app.command("recommend")(recommend_pattern)
app.command("stats")(show_stats)
app.command("demo")(run_demo)


def main() -> None:
    """The entry point."""
    app()


async def _dev(settings: Settings) -> None:
    config = load_config(settings.config).with_simulator()
    await _run_together(settings, config, embedded=not uses_own_cluster(), on_ready=lambda: _welcome(settings))


async def _api_with_worker(settings: Settings) -> None:
    def listens() -> None:
        log.info("api listens, worker polls", port=settings.port, task_queue=settings.task_queue)

    await _run_together(settings, load_config(settings.config), embedded=False, on_ready=listens)


async def _run_together(
    settings: Settings, config: SevenfoldConfig, *, embedded: bool, on_ready: Callable[[], None]
) -> None:
    """API and worker in one process, with a Temporal server of their own if it is `embedded`.

    The parts start in the order in which they need each other, and end in reverse.
    """
    settings.check_exposure()
    agents = load_agent_registry(settings, config)
    async with AsyncExitStack() as stack:
        sock = stack.enter_context(bind(settings.host, settings.port, "SEVENFOLD_PORT"))
        services = await stack.enter_async_context(open_services(settings, config, embedded=embedded))
        hubs = await stack.enter_async_context(open_streams(services, has_local_worker=True))
        await stack.enter_async_context(running_worker(services, agents, hubs))
        await stack.enter_async_context(running_connector(services))
        await serve(create_app(build_gateway(services, hubs)), sock, settings, on_ready=on_ready)


def _welcome(settings: Settings) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    typer.echo(f"Sevenfold is ready. API docs: http://{host}:{settings.port}/docs")
    if settings.ui_url:
        typer.echo(f"                    Temporal UI: {settings.ui_url}")
    typer.echo("Stop with Ctrl-C; every run is kept and goes on at the next start.")
