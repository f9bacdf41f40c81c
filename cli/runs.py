"""`sevenfold runs`: lists, shows and cancels runs."""

import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table

from sevenfold.cli.client import DEFAULT_URL, Url, call_gateway

app = typer.Typer(help="List, show and cancel runs.", invoke_without_command=True)

_STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow"}
_POLL_SECONDS = 1.0
_PAGE = 100

Pattern = Annotated[str | None, typer.Option(help="Only runs of this pattern, such as queue or streaming.")]
Agent = Annotated[str | None, typer.Option(help="Only runs of this agent.")]
Task = Annotated[str | None, typer.Option(help="Only runs of this task.")]
Status = Annotated[
    str | None, typer.Option(help="Only runs in this state: queued, processing, completed, failed or cancelled.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one run per line.")]


@app.callback()
def list_runs(
    context: typer.Context,
    pattern: Pattern = None,
    agent: Agent = None,
    task: Task = None,
    status: Status = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many runs at most.")] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with runs that start or end. Stop with Ctrl-C.")
    ] = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Lists runs: open ones first, then the latest."""
    if context.invoked_subcommand is not None:
        return
    filters = _to_params(pattern, agent, task, status)
    runs = list(_read_runs(url, filters, limit))
    if follow:
        _follow(url, filters, runs, as_json=as_json)
    elif as_json:
        for run in runs:
            typer.echo(json.dumps(run))
    else:
        table = Table("id", "pattern", "agent", "task", "status", "started", "took")
        for run in runs:
            table.add_row(*_cells(run))
        _console().print(table)


@app.command("show")
def show_run(
    run_id: Annotated[str, typer.Argument(help="The run's id, such as qry_….")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the gateway's answer as JSON.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Shows a run with its progress, result or error."""
    run = call_gateway("GET", url, f"/runs/{quote(run_id, safe='')}")
    if as_json:
        typer.echo(json.dumps(run, indent=2, ensure_ascii=False))
        return
    console = _console()
    console.print(" ".join(_cells(run)))
    if (progress := run.get("progress")) is not None and run["closedAt"] is None:
        console.print(f"{progress['percent']:.0f}% {progress['note']}", markup=False)
    if (waiting := run.get("waiting")) is not None:
        console.print(f"waits: {waiting['reason']}", markup=False)
    if (error := run.get("error")) is not None:
        console.print(f"{error['code']}, attempt {error['attempts']}: {error['detail']}", markup=False)
        if error.get("traceback"):
            console.print(error["traceback"], markup=False)
    if (result := run.get("result")) is not None:
        console.print(json.dumps(result, indent=2, ensure_ascii=False), markup=False)
    for name, link in run["links"].items():
        if link is not None:
            console.print(f"{name}: {link}", markup=False)


@app.command("cancel")
def cancel_runs(
    run_ids: Annotated[list[str] | None, typer.Argument(help="Ids of runs.")] = None,
    pattern: Pattern = None,
    agent: Agent = None,
    task: Task = None,
    status: Annotated[str | None, typer.Option(help="queued or processing; both by default.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Cancels runs, by their ids or by filters."""
    filters = _to_params(pattern, agent, task, status)
    chosen = run_ids or [run["id"] for run in _find_open(url, filters)]
    if not run_ids and not filters:
        typer.echo("Name runs by their ids, or by --agent, --task, --pattern or --status.", err=True)
        raise typer.Exit(2)
    if not chosen:
        typer.echo("No open run fits.")
        return
    if len(chosen) > 1 and not yes and not (sys.stdin.isatty() and typer.confirm(f"Cancel {len(chosen)} runs?")):
        typer.echo(f"{len(chosen)} runs fit, none was cancelled. Add --yes to cancel them.", err=True)
        raise typer.Exit(2)
    for run_id in chosen:
        run = call_gateway("POST", url, f"/runs/{quote(run_id, safe='')}/cancel")
        ended = run["closedAt"] is not None
        typer.echo(f"{run_id}: {run['status']}" if ended else f"{run_id}: cancellation requested")


def _find_open(url: str, filters: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yields the open runs that fit; those in one list come first."""
    for run in _read_runs(url, filters, None):
        if run["closedAt"] is not None:
            return
        yield run


def _to_params(pattern: str | None, agent: str | None, task: str | None, status: str | None) -> dict[str, str]:
    given = {"pattern": pattern, "agent": agent, "task": task, "status": status}
    return {name: value for name, value in given.items() if value is not None}


def _read_runs(url: str, filters: dict[str, str], limit: int | None) -> Iterator[dict[str, Any]]:
    """Yields the runs of all pages, at most `limit`."""
    params: dict[str, Any] = {**filters, "limit": min(limit or _PAGE, _PAGE)}
    count = 0
    while True:
        page = call_gateway("GET", url, "/runs", params=params)
        for run in page["items"]:
            if limit is not None and count == limit:
                return
            count += 1
            yield run
        if page["nextCursor"] is None:
            return
        params["cursor"] = page["nextCursor"]


def _follow(url: str, filters: dict[str, str], runs: list[dict[str, Any]], *, as_json: bool) -> None:
    """Prints each change of a run's state once."""
    shown: dict[str, str] = {}
    console = _console()
    try:
        while True:
            for run in sorted(runs, key=lambda one: one["closedAt"] or one["createdAt"]):
                if shown.get(run["id"]) != run["status"]:
                    shown[run["id"]] = run["status"]
                    if as_json:
                        typer.echo(json.dumps(run))
                    else:
                        console.print("  ".join(_cells(run)))
            shown = dict(list(shown.items())[-10 * _PAGE :])
            time.sleep(_POLL_SECONDS)
            runs = list(_read_runs(url, filters, _PAGE))
    except KeyboardInterrupt:
        return


def _cells(run: dict[str, Any]) -> list[str]:
    status, style = run["status"], _STYLES.get(run["status"], "cyan")
    started = datetime.fromisoformat(run["createdAt"])
    ended = datetime.fromisoformat(run["closedAt"]) if run["closedAt"] else None
    took = f"{(ended - started).total_seconds():.2f} s" if ended else f"{_age(started)} so far"
    local = started.astimezone().strftime("%H:%M:%S" if started.date() == datetime.now(UTC).date() else "%d %b %H:%M")
    return [run["id"], run["pattern"], run["agent"], run["task"], f"[{style}]{status}[/]", local, took]


def _age(started: datetime) -> str:
    return f"{max(0.0, (datetime.now(UTC) - started).total_seconds()):.0f} s"


def _console() -> Console:
    """Wraps no id in a pipe, where there is no width."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)
