"""Refuses requests that a web page of another site makes a browser send, and requests for a foreign host name.

A gateway on a laptop listens on loopback without a key. Any page in the user's browser can send requests there: from
its own origin, or from a name of its own that it lets resolve to 127.0.0.1 (DNS rebinding).
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sevenfold.api.http.problem_handlers import render
from sevenfold.api.http.problems import ProblemError, ProblemType
from sevenfold.api.http.request_id import request_id

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

# Probes use addresses.
_ANY_HOST = "/health/"

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

# For pages alone: Swagger UI has a script and styles in the page itself.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class OriginGuard:
    """ASGI middleware for HTTP and WebSocket. Refuses before the application reads anything.

    `hosts`: host names that `Host` may have beside those of loopback; `*` allows any. `origins`: origins
    (`https://app.example.com`) whose pages may call this API. Answers 421 for a foreign host, 403 for a foreign
    origin, both as problems; a WebSocket is refused with the same status before its handshake.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], origins: Iterable[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        problem = self._check(scope)
        if problem is None:
            await self._app(scope, receive, _with_security_headers(send))
            return
        response = render(problem, request_id())
        response.headers["Connection"] = "close"  # the body, if there is one, is not read
        await response(scope, receive, send)

    def _check(self, scope: Scope) -> ProblemError | None:
        headers = Headers(scope=scope)
        host = headers.getlist("host")
        if not scope["path"].startswith(_ANY_HOST) and not self._is_own_host(host):
            return ProblemError(
                ProblemType.MISDIRECTED,
                f"header:Host: this gateway does not serve {host[0][:200]}. "
                "Use localhost, or add the name to SEVENFOLD_ALLOWED_HOSTS.",
            )
        origin = headers.get("origin")
        if origin is not None:
            if origin.lower() in self._origins or _is_same_origin(origin, host, scope["scheme"]):
                return None
            return _foreign(f"header:Origin: pages of {origin[:200]} may not call this gateway.")
        if headers.get("sec-fetch-site") == "cross-site" and not _is_navigation(scope, headers):
            return _foreign("header:Sec-Fetch-Site: a page of another site sent this request.")
        return None

    def _is_own_host(self, values: list[str]) -> bool:
        if "*" in self._hosts or not values:  # every browser names a host
            return True
        if len(values) > 1:
            return False
        name = _host_name(values[0])
        return name in _LOOPBACK or name in self._hosts


def _foreign(what: str) -> ProblemError:
    return ProblemError(ProblemType.FOREIGN_ORIGIN, f"{what} Add its origin to SEVENFOLD_CORS_ORIGINS to allow it.")


def _host_name(host: str) -> str:
    """Without the port, in lower case; empty for what is no host."""
    try:
        return (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _is_same_origin(origin: str, host: list[str], scheme: str) -> bool:
    """Whether the page came from here. Behind a proxy that ends TLS the schemes differ; the port then does not."""
    try:
        page = urlsplit(origin)
        here = urlsplit(f"//{host[0]}" if host else "")
        default = _DEFAULT_PORTS.get(page.scheme)
        if page.scheme not in ("http", "https") or page.hostname is None or page.hostname != here.hostname:
            return False
        return (page.port or default) == (
            here.port or (default if page.scheme == "https" else _DEFAULT_PORTS[scheme])
        )
    except ValueError:
        return False


def _is_navigation(scope: Scope, headers: Headers) -> bool:
    """Whether somebody follows a link to a page here: its response is rendered, and no other page can read it."""
    return (
        scope["type"] == "http"
        and scope["method"] in ("GET", "HEAD")
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def _with_security_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-Content-Type-Options"] = "nosniff"
            if headers.get("content-type", "").startswith("text/html"):
                headers.setdefault("Content-Security-Policy", _PAGE_POLICY)
                headers.setdefault("Referrer-Policy", "no-referrer")
        await send(message)

    return send_with_headers
