"""The HTTP client for URLs that users gave: webhooks and documents. Nothing else may call those."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import httpcore
import httpx

from sevenfold.adapters.outbound.connections import KEPT_IDLE_SECONDS, GuardedConnections, Resolve, resolve_by_system
from sevenfold.adapters.outbound.urls import check_url

# Where a redirect leads, among a response's extensions.
LOCATION = "location"

_IDLE_CONNECTIONS = 20

# The first that fits. After TLS's handshake its errors come as they are, which are OSErrors.
_HTTPX_ERRORS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (httpcore.ConnectTimeout, httpx.ConnectTimeout),
    (httpcore.ReadTimeout, httpx.ReadTimeout),
    (httpcore.WriteTimeout, httpx.WriteTimeout),
    (httpcore.PoolTimeout, httpx.PoolTimeout),
    (httpcore.ConnectError, httpx.ConnectError),
    (httpcore.ReadError, httpx.ReadError),
    (httpcore.WriteError, httpx.WriteError),
    (httpcore.LocalProtocolError, httpx.LocalProtocolError),
    (httpcore.RemoteProtocolError, httpx.RemoteProtocolError),
    (TimeoutError, httpx.ReadTimeout),
    (OSError, httpx.ReadError),
)


def guarded_client(
    *,
    allow_loopback: bool,
    timeout: float,
    resolve: Resolve = resolve_by_system,
    ssl_context: ssl.SSLContext | None = None,
) -> httpx.AsyncClient:
    """A client that refuses what `check_url` refuses and connects to public addresses only.

    `timeout`: seconds for an exchange, from looking up the host to the last byte of its answer.
    `allow_loopback`: also this machine, in development only. `ssl_context`: whom to trust, if not the usual.
    It follows no redirect, keeps no cookie, repeats no request and heeds no proxy of the environment.
    Requests raise UnsafeUrlError where it refuses, and httpx.TransportError (UnresolvableError, which is one).
    """
    pool = httpcore.AsyncConnectionPool(
        ssl_context=ssl_context or httpx.create_ssl_context(trust_env=False),
        # Those who call decide how much goes on at once: a slow receiver must not take the place of others here.
        max_connections=None,
        max_keepalive_connections=_IDLE_CONNECTIONS,
        keepalive_expiry=KEPT_IDLE_SECONDS,
        network_backend=GuardedConnections(resolve, allow_loopback=allow_loopback),
    )
    return httpx.AsyncClient(
        transport=_GuardedTransport(pool, allow_loopback=allow_loopback, seconds=timeout),
        timeout=timeout,
        trust_env=False,
        follow_redirects=False,
        # gzip is all that `bounded` unpacks
        headers={"User-Agent": "Sevenfold", "Accept-Encoding": "gzip"},
    )


class _GuardedTransport(httpx.AsyncBaseTransport):
    def __init__(self, pool: httpcore.AsyncConnectionPool, *, allow_loopback: bool, seconds: float) -> None:
        self._pool = pool
        self._allow_loopback = allow_loopback
        self._seconds = seconds

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = check_url(str(request.url), allow_loopback=self._allow_loopback)
        # httpx bounds each read alone, so that a byte now and then would hold it for ever
        deadline = asyncio.get_running_loop().time() + self._seconds
        with _as_httpx():
            async with asyncio.timeout_at(deadline):
                answer = await self._pool.handle_async_request(
                    httpcore.Request(
                        request.method,
                        httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                        headers=request.headers.raw,
                        content=request.stream,
                        # no others: `sni_hostname` would have TLS trust another name
                        extensions={"timeout": request.extensions.get("timeout", {})},
                    )
                )
        headers = httpx.Headers(answer.headers)
        # httpx acts on these two even if told not to: it parses where a redirect leads (and fails with an
        # IDNAError for some), and stores cookies for whoever is next.
        location = headers.pop("Location", None)
        headers.pop("Set-Cookie", None)
        return httpx.Response(
            answer.status,
            headers=headers,
            stream=_Body(answer, deadline),
            extensions={**answer.extensions, LOCATION: location},
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: httpcore.Response, deadline: float) -> None:
        self._answer = answer
        self._pieces = answer.aiter_stream()
        self._deadline = deadline

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        # around each piece alone: what its reader does in between must not be cancelled from here
        with _as_httpx():
            async with asyncio.timeout_at(self._deadline):
                return await anext(self._pieces)

    async def aclose(self) -> None:
        with _as_httpx():
            await self._answer.aclose()


@contextmanager
def _as_httpx() -> Iterator[None]:
    try:
        yield
    except tuple(ours for ours, _ in _HTTPX_ERRORS) as error:
        theirs = next(theirs for ours, theirs in _HTTPX_ERRORS if isinstance(error, ours))
        raise theirs(str(error)) from error
