"""The HTTP client for URLs of users: webhooks and documents. Nothing else may call those URLs."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import httpcore
import httpx

from sevenfold.adapters.outbound.connections import KEPT_IDLE_SECONDS, GuardedConnections, Resolve, resolve_by_system
from sevenfold.adapters.outbound.urls import check_url

# The response extension that holds the target of a redirect.
LOCATION = "location"

_IDLE_CONNECTIONS = 20

# The first match counts. After the TLS handshake errors arrive as OSError.
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
    """Returns a client that refuses what `check_url` refuses and connects to public addresses only.

    `timeout`: seconds for a whole exchange, from resolving the host to the last byte of the response.
    `allow_loopback`: also this machine, in development only. `ssl_context`: replaces the default trust store.

    It follows no redirect, keeps no cookie, repeats no request and ignores proxies of the environment.

    Requests raise UnsafeUrlError, and httpx.TransportError (including UnresolvableError).
    """
    pool = httpcore.AsyncConnectionPool(
        ssl_context=ssl_context or httpx.create_ssl_context(trust_env=False),
        # Callers limit their concurrency: a slow receiver must not take the connections of others here.
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
        # gzip is the only coding that `bounded` decompresses.
        headers={"User-Agent": "Sevenfold", "Accept-Encoding": "gzip"},
    )


class _GuardedTransport(httpx.AsyncBaseTransport):
    def __init__(self, pool: httpcore.AsyncConnectionPool, *, allow_loopback: bool, seconds: float) -> None:
        self._pool = pool
        self._allow_loopback = allow_loopback
        self._seconds = seconds

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = check_url(str(request.url), allow_loopback=self._allow_loopback)
        # httpx limits each read separately, so a byte now and then would keep the exchange open forever.
        deadline = asyncio.get_running_loop().time() + self._seconds
        with _as_httpx():
            async with asyncio.timeout_at(deadline):
                answer = await self._pool.handle_async_request(
                    httpcore.Request(
                        request.method,
                        httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                        headers=request.headers.raw,
                        content=request.stream,
                        # No others: `sni_hostname` would make TLS trust another name.
                        extensions={"timeout": request.extensions.get("timeout", {})},
                    )
                )
        headers = httpx.Headers(answer.headers)
        # httpx acts on these two headers even if configured not to: it parses redirect targets (and raises IDNAError
        # for some) and stores cookies for later requests.
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
        # Around each piece only: this time-out must not cancel what the consumer does in between.
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
