"""`sevenfold keys`: creates API keys for `sevenfold.toml`, and lists, rotates and revokes those of a gateway."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table

from sevenfold.cli.client import DEFAULT_URL, Url, call_gateway
from sevenfold.cli.key_file import add_key, build_key, remove_key, render_key, rotate_key
from sevenfold.contracts.access.api_keys import generate_key
from sevenfold.contracts.access.principals import Scope, TenantName
from sevenfold.contracts.agents.config import Rate
from sevenfold.runtime.config.settings import load_settings
from sevenfold.runtime.startup import StartupError

app = typer.Typer(help="Create, list, rotate and revoke API keys.", no_args_is_help=True)

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def _parse_duration(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,5})([mhd])", text)
    if found is None:
        raise typer.BadParameter("write it as 30m, 24h or 90d")
    return int(found[1]) * _UNITS[found[2]]


def _parse_scopes(text: str) -> list[str]:
    scopes = [scope.strip() for scope in text.split(",") if scope.strip()]
    known = [scope.value for scope in Scope]
    for scope in scopes:
        if scope not in known:
            raise typer.BadParameter(f"there is no scope {scope}; there are: {', '.join(known)}")
    if not scopes:
        raise typer.BadParameter(f"name one or more of: {', '.join(known)}")
    return sorted(set(scopes))


def _check_rate(rate: str | None) -> str | None:
    try:
        TypeAdapter[float | None](Rate | None).validate_python(rate)
    except ValidationError:
        raise typer.BadParameter("write it as 100/s, 30/m or 1000/h") from None
    return rate


def _check_tenant(name: str) -> str:
    try:
        return TypeAdapter[str](TenantName).validate_python(name)
    except ValidationError as error:
        message = error.errors(include_input=False)[0]["msg"].removeprefix("Value error, ")
        raise typer.BadParameter(f"{message}: 1 to 40 lower-case letters, digits and -") from None


Tenant = Annotated[str, typer.Option(callback=_check_tenant, help="Whose key it is.")]
Write = Annotated[bool, typer.Option("--write", help="Change sevenfold.toml itself (SEVENFOLD_CONFIG).")]
KeyId = Annotated[str, typer.Argument(help="The key's id: the part between its first two underscores.")]
RESTART = "It takes effect when the gateway starts again."


@app.command()
def create(
    scopes: Annotated[str, typer.Option(help="Comma-separated, such as runs:write,runs:read.")],
    tenant: Tenant = "default",
    expires: Annotated[str | None, typer.Option(help="When it expires, such as 90d.")] = None,
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    rate: Annotated[str | None, typer.Option(help="Its requests, such as 100/s, 30/m or 1000/h.")] = None,
    write: Write = False,
) -> None:
    """Creates a key. Prints it alone on the standard output, and the lines for sevenfold.toml on the standard error.

    The file holds the hash only: keep the key, it cannot be shown again.
    """
    end = None if expires is None else (datetime.now(UTC) + _parse_duration(expires)).replace(microsecond=0)
    new = generate_key()
    table = build_key(new, _parse_scopes(scopes), name, _check_rate(rate), end)
    if write:
        with _reporting():
            path = load_settings().config
            add_key(path, tenant, table)
        typer.echo(f"Added the key {new.key_id} to {path}. {RESTART}", err=True)
    else:
        typer.echo(f"Add these lines to sevenfold.toml:\n\n{render_key(tenant, table)}\n", err=True)
    typer.echo(new.text)


@app.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Of this tenant only.")] = None, url: Url = DEFAULT_URL
) -> None:
    """Lists the keys of a running gateway. Needs SEVENFOLD_API_KEY with the scope admin."""
    table = Table("tenant")
    table.add_column("id", no_wrap=True)
    for name in ("name", "scopes", "expires", "last used", "stored in"):
        table.add_column(name)
    for key in _load_keys(url, tenant):
        where = "sevenfold.toml" if key["origin"] == "configuration" else "gateway"
        times = [(key[field] or "never")[:16].replace("T", " ") for field in ("expiresAt", "lastUsedAt")]
        table.add_row(key["tenant"], key["id"], key["name"], " ".join(key["scopes"]), *times, where)
    console = Console()
    if not console.is_terminal:  # In a pipe nothing is cut.
        console = Console(width=240)
    console.print(table)


@app.command()
def rotate(
    key_id: KeyId,
    overlap: Annotated[str, typer.Option(help="How long the old key works beside the new one.")] = "24h",
    write: Write = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Creates a key with the same scopes and prints it; the old one expires after the overlap."""
    duration = _parse_duration(overlap)
    if write:
        new = generate_key()
        with _reporting():
            path = load_settings().config
            rotate_key(path, key_id, new, duration)
        typer.echo(f"Added the key {new.key_id} to {path}; {key_id} expires in {overlap}. {RESTART}", err=True)
        typer.echo(new.text)
        return
    body = {"overlapSeconds": int(duration.total_seconds())}
    created = call_gateway("POST", url, f"/admin/tenants/{_find_tenant(url, key_id)}/keys/{key_id}/rotate", json=body)
    typer.echo(created["key"])


@app.command()
def revoke(key_id: KeyId, write: Write = False, url: Url = DEFAULT_URL) -> None:
    """Revokes a key, in every process of the gateway within a second."""
    if write:
        with _reporting():
            path = load_settings().config
            remove_key(path, key_id)
        typer.echo(f"Removed the key {key_id} from {path}. {RESTART}", err=True)
        return
    call_gateway("DELETE", url, f"/admin/tenants/{_find_tenant(url, key_id)}/keys/{key_id}")
    typer.echo(f"Revoked the key {key_id}.", err=True)


def _load_keys(url: str, tenant: str | None) -> Iterator[dict[str, Any]]:
    names = [tenant] if tenant else [one["name"] for one in call_gateway("GET", url, "/admin/tenants")["items"]]
    for name in names:
        yield from call_gateway("GET", url, f"/admin/tenants/{name}/keys")["items"]


def _find_tenant(url: str, key_id: str) -> str:
    for key in _load_keys(url, None):
        if key["id"] == key_id:
            return str(key["tenant"])
    typer.echo(f"The gateway at {url} has no key {key_id}. `sevenfold keys list` shows all.", err=True)
    raise typer.Exit(2)


@contextmanager
def _reporting() -> Iterator[None]:
    """Prints what is wrong with the file or the settings, and exits with 2."""
    try:
        yield
    except StartupError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
