"""`sevenfold usage`: shows what agents used."""

import csv
import json
import sys
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sevenfold.cli.client import DEFAULT_URL, Url, call_gateway

_COLUMNS = {
    "calls": "calls",
    "failedCalls": "failed",
    "inputTokens": "tokens in",
    "outputTokens": "tokens out",
    "costUsd": "cost",
}


class By(StrEnum):
    """What usage is summed by."""

    DAY = "day"
    AGENT = "agent"
    TENANT = "tenant"


def show_usage(
    days: Annotated[int, typer.Option(min=1, max=400, help="How many days, up to today (UTC).")] = 30,
    by: Annotated[
        list[By] | None, typer.Option(help="What is summed up separately, day and agent by default; repeat it.")
    ] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent's usage.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's usage, with an administrator's key.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the gateway's answer as JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Shows calls, tokens and cost by day and agent, and today's budgets."""
    if as_json and as_csv:
        raise typer.BadParameter("takes no --csv beside it: choose one.", param_hint="--json")
    columns = list(dict.fromkeys(by or [By.DAY, By.AGENT]))
    first = datetime.now(UTC).date() - timedelta(days=days - 1)
    params: dict[str, Any] = {"from": str(first), "by": [str(one) for one in columns]}
    params |= {name: value for name, value in (("agent", agent), ("tenant", tenant)) if value is not None}
    report = call_gateway("GET", url, "/usage", params=params)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    elif as_csv:
        writer = csv.DictWriter(sys.stdout, [*columns, *_COLUMNS], extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(report["items"])
    else:
        _print_tables(report, columns)


def _print_tables(report: dict[str, Any], by: list[By]) -> None:
    table = Table(*(str(one) for one in by), title=f"{report['from']} to {report['to']}, UTC")
    for title in _COLUMNS.values():
        table.add_column(title, justify="right")
    for row in report["items"]:
        table.add_row(*(str(row.get(one, "")) for one in by), *_format(row))
    table.add_section()
    table.add_row("total", *[""] * (len(by) - 1), *_format(report["total"]))
    console = Console()
    console.print(table)
    for one in report["budgets"]:
        budget = one["budget"]
        limits = []
        if budget.get("tokens") is not None:
            limits.append(f"{one['usedTokens']:,} of {budget['tokens']:,} tokens")
        if budget.get("usd") is not None:
            limits.append(f"${one['usedUsd']:,.2f} of ${budget['usd']:,.2f}")
        console.print(f"Budget of the {one['owner']} {one['name']} today: {', '.join(limits)}.")


def _format(figures: dict[str, Any]) -> list[str]:
    counts = [f"{figures[name]:,}" for name in _COLUMNS if name != "costUsd"]
    return [*counts, f"${figures['costUsd']:,.4f}"]
