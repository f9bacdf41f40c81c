"""Calls the gateway for the commands."""

import os
import ssl
from typing import Annotated, Any

import httpx
import typer

API = "/api/agent"

Url = Annotated[str, typer.Option("--url", envvar="SEVENFOLD_URL", help="The gateway's URL.")]
DEFAULT_URL = "http://127.0.0.1:8000"


def call_gateway(method: str, url: str, path: str, **more: Any) -> dict[str, Any]:
    """Returns the gateway's response. On an error prints what is wrong and what to do next, and exits with 2."""
    try:
        answer = httpx.request(method, f"{url}{API}{path}", timeout=30, trust_env=False, verify=_trusted(), **more)
    except httpx.HTTPError as error:
        typer.echo(f"No gateway answers at {url} ({error}). Start one with `make run`, or set --url.", err=True)
        raise typer.Exit(2) from None
    if answer.status_code >= 400:
        typer.echo(answer.json().get("detail", answer.text), err=True)
        raise typer.Exit(2)
    return dict(answer.json())


def _trusted() -> ssl.SSLContext | bool:
    """Trusts the certificates in SSL_CERT_FILE, if it is set: httpx ignores it without the environment's proxies."""
    file = os.environ.get("SSL_CERT_FILE")
    return ssl.create_default_context(cafile=file) if file else True
