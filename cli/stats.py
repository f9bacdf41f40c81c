"""`sevenfold stats`: shows statistics as a live table."""

import json
import sys
import time
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from sevenfold.cli.client import DEFAULT_URL, Url, call_gateway


def show_stats(
    hours: Annotated[int, typer.Option(min=1, max=720, help="The period, in hours before now.")] = 24,
    every: Annotated[float, typer.Option(min=0.5, help="Seconds between refreshes.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print the statistics once and exit.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the statistics once, as the gateway's JSON.")
    ] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Shows runs by pattern, agent and task, queues and webhooks. Stop with Ctrl-C."""

    def load() -> Group:
        return _tables(call_gateway("GET", url, "/stats", params={"hours": hours}))

    if as_json:
        typer.echo(json.dumps(call_gateway("GET", url, "/stats", params={"hours": hours}), indent=2))
        return
    if once:
        Console(width=None if sys.stdout.isatty() else 200).print(load())
        return
    try:
        with Live(load(), screen=False, auto_refresh=False) as live:
            while True:
                time.sleep(every)
                live.update(load(), refresh=True)
    except KeyboardInterrupt:
        return


def _tables(stats: dict[str, Any]) -> Group:
    runs = Table("pattern", "agent", "task", title=f"Since {stats['since'][:16]} UTC")
    for name in ("runs", "open", "failed", "errors", "p50", "p95"):
        runs.add_column(name, justify="right")
    for one in stats["runs"]:
        figures = [str(one["count"]), str(one["open"]), str(one["failed"]), f"{one['errorRate']:.0%}"]
        runs.add_row(one["pattern"], one["agent"], one["task"], *figures, _seconds(one["p50"]), _seconds(one["p95"]))
    queues = Table("queue", "waiting", "oldest")
    for queue in stats["queues"]:
        queues.add_row(queue["name"], str(queue["depth"]), _seconds(queue["age"]))
    webhooks = stats["webhooks"]
    rate = webhooks["successRate"]
    summary = (
        f"Webhooks: {webhooks['delivered']} delivered, {webhooks['exhausted']} exhausted, "
        f"{webhooks['inProgress']} in progress" + ("." if rate is None else f"; success {rate:.0%}.")
    )
    return Group(runs, queues, summary)


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f} s"
