"""`sevenfold recommend`: recommends a pattern for a use case."""

import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from sevenfold.cli.client import DEFAULT_URL, Url, call_gateway
from sevenfold.contracts.runs.recommendation import ClientKind, Maturity, Recommendation, Situation, recommend


def recommend_pattern(
    duration: Annotated[float | None, typer.Option(min=0, help="How long the agent takes, in seconds.")] = None,
    client: Annotated[ClientKind | None, typer.Option(help="Who controls the client.")] = None,
    traffic: Annotated[float | None, typer.Option(min=0, help="Requests per minute.")] = None,
    watch: Annotated[
        bool | None, typer.Option("--watch/--no-watch", help="Whether people want to watch the progress.")
    ] = None,
    maturity: Annotated[Maturity | None, typer.Option(help="How mature your infrastructure is.")] = None,
    agent: Annotated[str | None, typer.Option(help="Measure duration and traffic from this agent's runs.")] = None,
    task: Annotated[str | None, typer.Option(help="A task of that agent.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Recommends a pattern by five questions, each optional. Without options, a terminal is prompted for them."""
    situation = Situation(
        duration_seconds=duration,
        client=client,
        requests_per_minute=traffic,
        real_time_feedback=watch,
        maturity=maturity,
    )
    given = situation.model_dump(exclude_none=True)
    if not given and agent is None and sys.stdin.isatty():
        situation = _questions()
    if agent is not None:
        params = {"agent": agent, **({"task": task} if task else {})}
        body = situation.model_dump(mode="json", by_alias=True, exclude_none=True)
        found = Recommendation.model_validate(
            call_gateway("POST", url, "/patterns/recommend", params=params, json=body)
        )
    else:
        found = recommend(situation)
    if as_json:
        typer.echo(found.model_dump_json(by_alias=True, indent=2))
    else:
        _show(found)


def _questions() -> Situation:
    """Prompts for the five answers. An empty answer leaves the question open."""
    answers: dict[str, Any] = {
        "duration_seconds": typer.prompt("How long does the agent take, in seconds?", default="", show_default=False),
        "client": typer.prompt("Who controls the client? (own, thirdParty, legacy)", default="", show_default=False),
        "requests_per_minute": typer.prompt("How many requests per minute?", default="", show_default=False),
        "real_time_feedback": typer.prompt("Do people want to watch? (yes, no)", default="", show_default=False),
        "maturity": typer.prompt("Your team? (early, growing, mature)", default="", show_default=False),
    }
    try:
        return Situation(**{name: answer for name, answer in answers.items() if answer})
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


def _show(found: Recommendation) -> None:
    console = Console()
    console.print(f"[bold]{found.pattern}[/bold]   {found.start}")
    for reason in found.reasons:
        console.print(f"  {reason.detail} → {reason.pattern}")
    if found.alternatives:
        console.print(f"Next best: {', '.join(found.alternatives)}")
    for conflict in found.conflicts:
        console.print(f"[yellow]Conflict:[/yellow] {conflict}")
    for warning in found.warnings:
        console.print(f"[dim]Note:[/dim] {warning}")
