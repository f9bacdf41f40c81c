"""The `sevenfold` command."""

import errno
import io
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sevenfold import __version__
from sevenfold.cli import deploy, keys, runs
from sevenfold.cli.demo import run_demo
from sevenfold.cli.init import write_project
from sevenfold.cli.listen import listen
from sevenfold.cli.recommend import recommend_pattern
from sevenfold.cli.stats import show_stats
from sevenfold.cli.trigger import trigger_event
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
    agent: Annotated[
        str | None,
        typer.Option(help="A Python agent as module:function, such as support:answer. It becomes the default agent."),
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Start again when a Python file or sevenfold.toml changes.")
    ] = False,
    without_temporal: Annotated[bool, typer.Option("--without-temporal", hidden=True)] = False,
) -> None:
    """Starts everything on this machine: Temporal, the API and a worker.

    With TEMPORAL_ADDRESS set, starts the API and a worker against that Temporal.
    """
    if reload:
        _serve("dev_with_reload", ui=ui, options=["--agent", agent] if agent else [])
    else:
        _serve("dev", ui=ui, agent=agent, runs_temporal=not without_temporal)


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
app.add_typer(runs.app, name="runs")
app.command("trigger")(trigger_event)
app.command()(verify_webhook)
app.command()(listen)
app.command("recommend")(recommend_pattern)
app.command("stats")(show_stats)
app.command("usage")(show_usage)
app.command("demo")(run_demo)
app.command("init")(write_project)


@app.command()
def check(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per part.")] = False,
) -> None:
    """Checks settings, configuration, agents, keys, Temporal, stores and brokers. Exits with 1 if any part fails."""
    from sevenfold.cli.check import check_gateway  # noqa: PLC0415  (imported on use, as the servers)

    check_gateway(as_json=as_json)


@app.command()
def schema() -> None:
    """Prints the JSON Schema of sevenfold.toml, for editors."""
    from sevenfold.contracts.config.schema import SevenfoldConfig  # noqa: PLC0415  (imported on use, as the servers)
    from sevenfold.runtime.config.field_docs import describe_schema, find_models  # noqa: PLC0415

    typer.echo(json.dumps(describe_schema(SevenfoldConfig, find_models(SevenfoldConfig)), indent=2))


def _serve(name: str, **options: object) -> None:
    # Imported on use: it takes a second, which the other commands need not wait for.
    from sevenfold.cli import servers  # noqa: PLC0415
    from sevenfold.runtime.command import run  # noqa: PLC0415

    run(partial(getattr(servers, name), **options))


def main() -> None:
    """Runs the command. What a terminal cannot show is replaced."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # It was closed.
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EPIPE):
            raise
        sys.stderr.write(f"The output cannot be written: {error.strerror}.\n")
        sys.exit(1)
