"""The `sevenfold` command."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Annotated

import structlog
import typer

from sevenfold import __version__
from sevenfold.api.app import create_app, run_api, serve
from sevenfold.api.components import build_components
from sevenfold.cli import keys
from sevenfold.cli.demo import run_demo
from sevenfold.cli.listen import listen
from sevenfold.cli.recommend import recommend_pattern
from sevenfold.cli.stats import show_stats
from sevenfold.cli.verify_webhook import verify_webhook
from sevenfold.connector import run_connector, running_connector
from sevenfold.contracts.config import SevenfoldConfig
from sevenfold.runtime.command import run
from sevenfold.runtime.config_file import load_config
from sevenfold.runtime.ports import bind
from sevenfold.runtime.services import open_services
from sevenfold.runtime.settings import Settings, uses_own_cluster
from sevenfold.runtime.streams import open_streams
from sevenfold.runtime.tls import load_tls
from sevenfold.worker import load_agent_registry, run_worker, running_worker

log = structlog.get_logger(__name__)

app = typer.Typer(
    help="Sevenfold, an agent integration gateway: one agent, seven patterns, each a durable workflow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sevenfold {__version__}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Options before the subcommand."""


@app.command()
def dev(
    ui: Annotated[bool, typer.Option("--ui", help="Start Temporal's UI too. It answers for any host name.")] = False,
) -> None:
    """Starts everything on this machine: Temporal, the API and a worker.

    With TEMPORAL_ADDRESS set, starts the API and a worker against that Temporal.
    """
    run(_dev_with_ui if ui else _dev)


@app.command()
def api(
    with_worker: Annotated[
        bool,
        typer.Option(
            "--with-worker", help="Also run a worker in this process; streams then pass through its memory."
        ),
    ] = False,
) -> None:
    """Starts an API process. Start as many as needed."""
    run(_api_with_worker if with_worker else run_api)


@app.command()
def worker() -> None:
    """Starts a worker process. Start as many as needed."""
    run(run_worker)


@app.command()
def connect() -> None:
    """Starts a process that consumes from and publishes to the configured brokers. Start as many as needed."""
    run(run_connector)


app.add_typer(keys.app, name="keys")
app.command()(verify_webhook)
app.command()(listen)
app.command("recommend")(recommend_pattern)
app.command("stats")(show_stats)
app.command("demo")(run_demo)


def main() -> None:
    """Runs the command."""
    app()


async def _dev(settings: Settings) -> None:
    config = load_config(settings.config).with_simulator()

    def on_ready() -> None:
        _welcome(settings, config)

    await _run_together(settings, config, embedded=not uses_own_cluster(), on_ready=on_ready)


async def _dev_with_ui(settings: Settings) -> None:
    await _dev(settings.model_copy(update={"temporal_ui": True}))


async def _api_with_worker(settings: Settings) -> None:
    def on_ready() -> None:
        log.info("api listens, worker polls", port=settings.port, task_queue=settings.task_queue)

    await _run_together(settings, load_config(settings.config), embedded=False, on_ready=on_ready)


async def _run_together(
    settings: Settings, config: SevenfoldConfig, *, embedded: bool, on_ready: Callable[[], None]
) -> None:
    """Runs API and worker in one process, with an embedded Temporal server if `embedded`.

    The parts start in the order of their dependencies, and stop in reverse.
    """
    settings.check_exposure(has_credentials=config.has_credentials)
    load_tls(settings)  # a mistake is reported before anything starts
    agents = load_agent_registry(settings, config)
    async with AsyncExitStack() as stack:
        sock = stack.enter_context(bind(settings.host, settings.port, "SEVENFOLD_PORT"))
        services = await stack.enter_async_context(open_services(settings, config, embedded=embedded))
        hubs = await stack.enter_async_context(open_streams(services, has_local_worker=True))
        await stack.enter_async_context(running_worker(services, agents, hubs))
        await stack.enter_async_context(running_connector(services))
        await serve(create_app(build_components(services, hubs)), sock, settings, on_ready=on_ready)


def _welcome(settings: Settings, config: SevenfoldConfig) -> None:
    typer.echo(f"Sevenfold is ready. API docs: {settings.listen_url}/docs")
    if settings.ui_url:
        typer.echo(f"                    Temporal UI: {settings.ui_url}")
    elif not uses_own_cluster():
        typer.echo("                    Temporal UI: off; `sevenfold dev --ui` starts it")
    if config.has_credentials:
        typer.echo(
            f"                    Requests need a key or an access token, by {settings.config}; so does /docs."
        )
    typer.echo("Stop with Ctrl-C. Runs are stored and continue at the next start.")
