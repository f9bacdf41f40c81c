"""Calls the gateway for the commands."""

import os
import ssl
from typing import Annotated, Any

import httpx
import typer

API = "/api/agent"

Url = Annotated[str, typer.Option("--url", envvar="SEVENFOLD_URL", help="The gateway's URL.")]
DEFAULT_URL = "http://127.0.0.1:8000"


# Not an option, because every user of the machine can read arguments.
KEY_VARIABLE = "SEVENFOLD_API_KEY"


def key_headers() -> dict[str, str]:
    """Returns the header with the key of SEVENFOLD_API_KEY; none if it is not set."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    return {"Authorization": f"Bearer {key}"} if key else {}


def call_gateway(method: str, url: str, path: str, **more: Any) -> dict[str, Any]:
    """Returns the gateway's response. On an error prints what is wrong and what to do next, and exits with 2."""
    try:
        answer = httpx.request(
            method,
            f"{url}{API}{path}",
            timeout=30,
            trust_env=False,
            verify=_trusted(),
            headers=key_headers(),
            **more,
        )
    except httpx.HTTPError as error:
        typer.echo(f"No gateway answers at {url} ({error}). Start one with `make run`, or set --url.", err=True)
        raise typer.Exit(2) from None
    if answer.status_code >= 400:
        typer.echo(_describe(answer), err=True)
        raise typer.Exit(2)
    return dict(answer.json()) if answer.content else {}


def _trusted() -> ssl.SSLContext | bool:
    """Trusts the certificates in SSL_CERT_FILE, if it is set: httpx ignores it without the environment's proxies."""
    file = os.environ.get("SSL_CERT_FILE")
    return ssl.create_default_context(cafile=file) if file else True


def _describe(answer: httpx.Response) -> str:
    try:
        detail = str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"The server answered {answer.status_code}, but not as Sevenfold does."
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        detail += f" Set {KEY_VARIABLE} to a key."
    return detail
