"""`sevenfold runs`: lists, shows, cancels and retries runs."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import takewhile
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table

from sevenfold.cli.client import DEFAULT_URL, GatewayError, Url, call_gateway, try_gateway

app = typer.Typer(help="List, show, cancel and retry runs.", invoke_without_command=True)

_STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow"}
_POLL_SECONDS = 1.0
_PAGE = 100
_RETRIED = ("failed", "cancelled")
_FILTERS = {
    "Cancel": "--agent, --task, --pattern or --status",
    "Retry": "--agent, --task or --pattern",
}

Pattern = Annotated[str | None, typer.Option(help="Only runs of this pattern, such as queue or streaming.")]
Agent = Annotated[str | None, typer.Option(help="Only runs of this agent.")]
Task = Annotated[str | None, typer.Option(help="Only runs of this task.")]
Status = Annotated[
    str | None, typer.Option(help="Only runs in this state: queued, processing, completed, failed or cancelled.")
]
Ids = Annotated[list[str] | None, typer.Argument(help="Ids of runs.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
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
    _show_durable(console, run)
    if (error := run.get("error")) is not None:
        console.print(f"{error['code']}, attempt {error['attempts']}: {error['detail']}", markup=False)
        if error.get("traceback"):
            console.print(error["traceback"], markup=False)
    if (result := run.get("result")) is not None:
        console.print(json.dumps(result, indent=2, ensure_ascii=False), markup=False)
    for name, link in run["links"].items():
        if link is not None:
            console.print(f"{name}: {link}", markup=False)


def _show_durable(console: Console, run: dict[str, Any]) -> None:
    """Prints what the run's agent asks, and its steps."""
    for request in run.get("requests") or []:
        console.print(f"asks {request['id']}: {request['message']} {request['url'] or ''}", markup=False)
    for step in run.get("steps") or []:
        took = f", {step['seconds']:.2f} s" if step["seconds"] is not None else ""
        console.print(f"step {step['key']}: {step['status']}, attempt {step['attempt']}{took}", markup=False)


@app.command("cancel")
def cancel_runs(
    run_ids: Ids = None,
    pattern: Pattern = None,
    agent: Agent = None,
    task: Task = None,
    status: Annotated[str | None, typer.Option(help="queued or processing; both by default.")] = None,
    yes: Yes = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Cancels runs, by their ids or by filters."""
    filters = _to_params(pattern, agent, task, status)
    chosen = run_ids or _choose(filters, takewhile(_is_open, _read_runs(url, filters, None)), "Cancel", yes=yes)
    _post_to_each(url, chosen, "cancel", lambda run: "cancellation requested" if _is_open(run) else run["status"])


@app.command("retry")
def retry_runs(
    run_ids: Ids = None,
    pattern: Pattern = None,
    agent: Agent = None,
    task: Task = None,
    status: Annotated[str, typer.Option(help="failed or cancelled.")] = "failed",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many runs at most, the latest first.")] = 1_000,
    yes: Yes = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Starts runs again that have failed or were cancelled, by their ids or by filters."""
    filters = _to_params(pattern, agent, task, None)
    if status not in _RETRIED:
        typer.echo("--status is failed or cancelled: other runs are not retried.", err=True)
        raise typer.Exit(2)
    ended = _read_runs(url, {**filters, "status": status}, limit)
    chosen = run_ids or _choose(filters, ended, "Retry", yes=yes)
    _post_to_each(url, chosen, "retry", lambda run: str(run["status"]))


def _post_to_each(url: str, run_ids: list[str], action: str, describe: Callable[[dict[str, Any]], str]) -> None:
    """Sends a request for each run, and prints a line for it. Exits with 1 at the end if one was refused."""
    refused = False
    for run_id in dict.fromkeys(run_ids):
        try:
            run = try_gateway("POST", url, f"/runs/{quote(run_id, safe='')}/{action}")
            typer.echo(f"{run_id}: {describe(run)}")
        except GatewayError as error:
            refused = True
            typer.echo(f"{run_id}: {error}", err=True)
    if refused:
        raise typer.Exit(1)


def _choose(filters: dict[str, str], fitting: Iterable[dict[str, Any]], verb: str, *, yes: bool) -> list[str]:
    """Returns the ids of the runs that fit; asks before it returns several. Exits with 2 without any filter."""
    if not filters:
        typer.echo(f"Name runs by their ids, or by {_FILTERS[verb]}.", err=True)
        raise typer.Exit(2)
    chosen = [run["id"] for run in fitting]
    if not chosen:
        typer.echo("No run fits.")
        raise typer.Exit
    if len(chosen) > 1 and not yes and not (sys.stdin.isatty() and typer.confirm(f"{verb} {len(chosen)} runs?")):
        typer.echo(f"{len(chosen)} runs fit, and nothing was done. Add --yes to continue.", err=True)
        raise typer.Exit(2)
    return chosen


def _is_open(run: dict[str, Any]) -> bool:
    return run["closedAt"] is None


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
