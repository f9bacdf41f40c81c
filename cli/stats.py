"""`sevenfold stats`: how things are going, as a live table."""

import time
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from sevenfold.cli.client import DEFAULT_URL, Url, call_gateway


def show_stats(
    hours: Annotated[int, typer.Option(min=1, max=720, help="How far back to look.")] = 24,
    every: Annotated[float, typer.Option(min=0.5, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="One look, then the end.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Shows runs by pattern, agent and task, queues and webhooks. Ends with Ctrl-C."""

    def look() -> Group:
        return _tables(call_gateway("GET", url, "/stats", params={"hours": hours}))

    if once:
        Console().print(look())
        return
    try:
        with Live(look(), screen=False, auto_refresh=False) as live:
            while True:
                time.sleep(every)
                live.update(look(), refresh=True)
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
        f"Webhooks: {webhooks['delivered']} delivered, {webhooks['exhausted']} given up, "
        f"{webhooks['inProgress']} under way" + ("." if rate is None else f"; success {rate:.0%}.")
    )
    return Group(runs, queues, summary)


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f} s"
