"""`sevenfold trigger`: publishes an event."""

import json
import sys
import time
import uuid
from typing import Annotated, Any

import typer

from sevenfold.cli.client import DEFAULT_URL, Url, call_gateway
from sevenfold.contracts.json.strict import parse_json

_WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.5


def trigger_event(
    event: Annotated[str, typer.Argument(help="The event's type, such as customer.created.")],
    data: Annotated[str, typer.Option(help="The event's data as JSON; - reads it from standard input.")] = "{}",
    source: Annotated[str, typer.Option(help="The event's source.")] = "/cli",
    subject: Annotated[str | None, typer.Option(help="The event's subject.")] = None,
    identity: Annotated[
        str | None, typer.Option("--id", help="The event's id. The same id again is a duplicate.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all reactions have ended.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the gateway's answer as JSON.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Publishes an event, and shows what it starts. Exits with 1 if a reaction fails while it waits."""
    cloud_event: dict[str, Any] = {
        "specversion": "1.0",
        "id": identity or str(uuid.uuid4()),
        "source": source,
        "type": event,
        "data": _read_data(data),
    }
    if subject is not None:
        cloud_event["subject"] = subject
    accepted = call_gateway("POST", url, "/events", json=cloud_event)["items"][0]
    found = _wait_for(url, accepted["id"]) if wait else call_gateway("GET", url, f"/events/{accepted['id']}")
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        typer.echo(f"{accepted['id']}: {accepted['status']}")
        for one in found["reactions"]:
            typer.echo(f"  {one['subscription']}: {one['status']} ({one['id']})")
        if wait and not found["reactions"]:
            typer.echo(f"  No subscription matches {event} from {source}.")
    if wait and any(one["status"] == "failed" for one in found["reactions"]):
        raise typer.Exit(1)


def _read_data(text: str) -> Any:
    try:
        return parse_json((sys.stdin.read() if text == "-" else text).encode())
    except ValueError as error:
        typer.echo(f"--data is not JSON: {error}.", err=True)
        raise typer.Exit(2) from None


def _wait_for(url: str, event_id: str) -> dict[str, Any]:
    until = time.monotonic() + _WAIT_SECONDS
    while True:
        found = call_gateway("GET", url, f"/events/{event_id}")
        is_open = found["status"] in ("queued", "processing") or any(
            one["status"] in ("queued", "processing") for one in found["reactions"]
        )
        if not is_open or time.monotonic() > until:
            return found
        time.sleep(_POLL_SECONDS)
