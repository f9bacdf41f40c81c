"""The `sevenfold` command."""

from contextlib import AsyncExitStack
from datetime import timedelta

import typer

from api.main import build_gateway, create_app, run_api, serve
from runtime.command import run
from runtime.config_file import load_config
from runtime.data_dir import held
from runtime.embedded import EmbeddedTemporal
from runtime.namespace import ensure_retention, ensure_search_attributes
from runtime.ports import bind
from runtime.settings import Settings, uses_own_cluster
from runtime.streams import opened_streams
from runtime.temporal import connected
from worker import load_registry, run_worker, running_worker

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
def api() -> None:
    """Starts the API alone; as many as needed."""
    run(run_api)


@app.command()
def worker() -> None:
    """Starts a worker alone; as many as needed."""
    run(run_worker)


def main() -> None:
    """The entry point."""
    app()


async def _dev(settings: Settings) -> None:
    """The parts start in the order in which they need each other, and end in reverse."""
    settings.check_exposure()
    config = load_config(settings.config).with_simulator()
    agents = load_registry(settings, config)
    async with AsyncExitStack() as stack:
        sock = stack.enter_context(bind(settings.host, settings.port, "SEVENFOLD_PORT"))
        if not uses_own_cluster():
            stack.enter_context(held(settings.data_dir))
            await stack.enter_async_context(EmbeddedTemporal(settings))
        client = await stack.enter_async_context(connected(settings))
        if not uses_own_cluster():
            await ensure_retention(client, timedelta(days=settings.retention_days))
        await ensure_search_attributes(client)
        streams = await stack.enter_async_context(opened_streams(settings, client, local=True))
        await stack.enter_async_context(running_worker(client, settings, agents, streams))
        gateway = build_gateway(client, settings, config, streams)
        await serve(create_app(gateway), sock, settings, on_ready=lambda: _welcome(settings))


def _welcome(settings: Settings) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    typer.echo(f"Sevenfold is ready. API docs: http://{host}:{settings.port}/docs")
    if settings.ui_url:
        typer.echo(f"                    Temporal UI: {settings.ui_url}")
    typer.echo("Stop with Ctrl-C; every run is kept and goes on at the next start.")
