"""The `sevenfold` command."""

from typing import Annotated

import typer

from sevenfold import __version__
from sevenfold.cli import deploy, keys
from sevenfold.cli.demo import run_demo
from sevenfold.cli.listen import listen
from sevenfold.cli.recommend import recommend_pattern
from sevenfold.cli.stats import show_stats
from sevenfold.cli.usage import show_usage
from sevenfold.cli.verify_webhook import verify_webhook

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
    _serve("dev_with_ui" if ui else "dev")


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
    _serve("api_with_worker" if with_worker else "run_api")


@app.command()
def worker(
    set_current: Annotated[
        bool,
        typer.Option("--set-current", help="Make SEVENFOLD_BUILD_ID current if no build has ever been."),
    ] = False,
) -> None:
    """Starts a worker process. Start as many as needed."""
    _serve("run_worker_and_set_current" if set_current else "run_worker")


@app.command()
def connect() -> None:
    """Starts a process that consumes from and publishes to the configured brokers. Start as many as needed."""
    _serve("run_connector")


app.add_typer(keys.app, name="keys")
app.add_typer(deploy.app, name="deploy")
app.command()(verify_webhook)
app.command()(listen)
app.command("recommend")(recommend_pattern)
app.command("stats")(show_stats)
app.command("usage")(show_usage)
app.command("demo")(run_demo)


def _serve(name: str) -> None:
    # Imported on use: it takes a second, which the other commands need not wait for.
    from sevenfold.cli import servers  # noqa: PLC0415
    from sevenfold.runtime.command import run  # noqa: PLC0415

    run(getattr(servers, name))


def main() -> None:
    """Runs the command."""
    app()
