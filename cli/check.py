"""`sevenfold check`: whether a gateway could start here."""

import asyncio
import json
import os
import sys
from pathlib import Path

import typer
from rich.console import Console

from sevenfold.runtime.checks import Checks, Finding
from sevenfold.runtime.config.settings import Settings, load_settings
from sevenfold.runtime.process.logs import configure_logs
from sevenfold.runtime.process.stopping import hard_exit
from sevenfold.runtime.startup import StartupError


def check_gateway(*, as_json: bool) -> None:
    """Prints what each part is like. Exits with 1 if any fails."""
    configure_logs({"": "critical"})
    try:
        settings = load_settings()
    except StartupError as error:
        _show(Finding("settings", is_ok=False, detail=str(error)), as_json=as_json)
        raise typer.Exit(1) from None
    hard_exit(0 if asyncio.run(_check(settings, as_json=as_json)) else 1)


async def _check(settings: Settings, *, as_json: bool) -> bool:
    is_ok = True
    async for finding in Checks(settings).run():
        _show(finding, as_json=as_json)
        is_ok = is_ok and finding.is_ok
    return is_ok


def _show(finding: Finding, *, as_json: bool) -> None:
    """Prints a finding. A reader that closes the pipe early (`| head`) does not fail the check."""
    try:
        _print(finding, as_json=as_json)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # Rich ends the process at a broken pipe.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  (until the process ends)


def _print(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"part": finding.part, "ok": finding.is_ok, "detail": finding.detail}))
        return
    first, *more = finding.detail.splitlines() or [""]
    mark = "[green]ok  [/]" if finding.is_ok else "[red]FAIL[/]"
    console = Console(highlight=False, soft_wrap=True)
    console.print(mark, end=" ")
    console.print(f"{finding.part}: {first}", markup=False)
    for line in more:
        console.print(f"     {line}", markup=False)
