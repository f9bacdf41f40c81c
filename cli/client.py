"""Calls the gateway for the commands."""

import os
import ssl
from contextlib import suppress
from typing import Annotated, Any, NoReturn
from urllib.parse import urlsplit

import httpx
import typer

API = "/api/agent"

Url = Annotated[str, typer.Option("--url", envvar="SEVENFOLD_URL", help="The gateway's URL.")]
DEFAULT_URL = (
    f"{'https' if os.environ.get('SEVENFOLD_TLS_CERT') else 'http'}://127.0.0.1:"
    f"{os.environ.get('SEVENFOLD_PORT') or 8000}"
)


# Not an option, because every user of the machine can read arguments.
KEY_VARIABLE = "SEVENFOLD_API_KEY"


def key_headers() -> dict[str, str]:
    """Returns the header with the key of SEVENFOLD_API_KEY; none if it is not set."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and (key.isprintable() or not key)):
        _fail(f"{KEY_VARIABLE} is not an API key: it has invalid characters.")
    return {"Authorization": f"Bearer {key}"} if key else {}


# Every answer of the gateway has it.
_REQUEST_ID_HEADER = "X-Request-Id"


class GatewayError(Exception):
    """The gateway refuses a request. The message states the reason."""


def call_gateway(method: str, url: str, path: str, **more: Any) -> dict[str, Any]:
    """Returns the gateway's response. On an error prints what is wrong and what to do next, and exits with 2."""
    try:
        return try_gateway(method, url, path, **more)
    except GatewayError as error:
        _fail(str(error))


def try_gateway(method: str, url: str, path: str, **more: Any) -> dict[str, Any]:
    """The same for one request of several: raises GatewayError if the gateway refuses it."""
    _check_url(url)
    try:
        answer = httpx.request(
            method,
            f"{url.rstrip('/').removesuffix(API)}{API}{path}",
            timeout=30,
            trust_env=False,
            verify=_trusted(),
            headers=key_headers(),
            **more,
        )
    except httpx.HTTPError as error:
        _fail(_explain(url, error))
    except (httpx.InvalidURL, UnicodeError) as error:
        _fail(f"The request cannot be sent: {error}.")
    if answer.status_code >= 400:
        raise GatewayError(_describe(answer))
    if _REQUEST_ID_HEADER in answer.headers:
        with suppress(ValueError, TypeError):
            return dict(answer.json()) if answer.content else {}
    raise GatewayError(f"What answers at {url} is not Sevenfold. Check SEVENFOLD_URL, SEVENFOLD_PORT or --url.")


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(2)


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url) if url.isprintable() else None
        is_url = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        has_more = parts is not None and bool(parts.query or parts.fragment)
    except ValueError:
        is_url = has_more = False
    if not is_url or has_more:
        _fail(
            "The gateway's URL is invalid: use one such as http://127.0.0.1:8000. Check SEVENFOLD_URL, "
            "SEVENFOLD_PORT or --url."
        )


def _trusted() -> ssl.SSLContext | bool:
    """Trusts the certificates in SSL_CERT_FILE, if it is set: httpx ignores it without the environment's proxies."""
    file = os.environ.get("SSL_CERT_FILE")
    try:
        return ssl.create_default_context(cafile=file) if file else True
    except OSError as error:
        _fail(f"SSL_CERT_FILE={file} cannot be used: {error}.")


def _explain(url: str, error: httpx.HTTPError) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return f"The certificate of {url} is not trusted ({error}). Set SSL_CERT_FILE to that of its issuer."
    if isinstance(error, httpx.RemoteProtocolError) and url.startswith("http:"):
        return f"What answers at {url} does not speak plain http ({error}). Set SEVENFOLD_URL to https://…."
    return f"No gateway answers at {url} ({error}). Start one with `sevenfold dev`, or set --url."


def _describe(answer: httpx.Response) -> str:
    try:
        detail = str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"The server answered {answer.status_code}, but not as Sevenfold does."
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        detail += f" Set {KEY_VARIABLE} to a key."
    return detail
