"""Fetches and caches the key set of an OpenID Connect issuer."""

import asyncio
from contextvars import Context
from dataclasses import dataclass

import httpx
import structlog
from pydantic_core import from_json

from sevenfold.adapters.access.signing_keys import KeySet, parse_key_set
from sevenfold.adapters.outbound.bounded import read_at_most
from sevenfold.contracts.config.access import is_on_loopback

log = structlog.get_logger(__name__)

_DISCOVERY = "/.well-known/openid-configuration"
_MAX_DOCUMENT_BYTES = 256_000
# gzip is the only coding that `bounded` decompresses.
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "Sevenfold"}


def issuer_client() -> httpx.AsyncClient:
    """Returns an HTTP client for the issuer. It honours the proxy variables of the environment and keeps few
    connections.
    """
    return httpx.AsyncClient(limits=httpx.Limits(max_connections=4, keepalive_expiry=5.0), follow_redirects=False)


class IssuerUnavailableError(Exception):
    """The issuer's keys are not known, and it does not answer now. A later attempt may succeed."""


@dataclass(frozen=True)
class KeyTimes:
    """All in seconds. `refresh`: age at which the keys are fetched again. `pause`: between two fetches, whatever
    tokens arrive. `first_pause`: the same while there are no keys yet. `timeout`: for one fetch, both documents.
    """

    refresh: float = 600.0
    pause: float = 10.0
    first_pause: float = 1.0
    timeout: float = 5.0


class IssuerKeys:
    """The keys of one issuer.

    There are none until the first fetch succeeds, which the first token starts. From then on a background task
    replaces them every `refresh` seconds; if that fails, the old ones stay in use and the fetch is repeated.

    Only one fetch runs at a time: concurrent callers wait for the same one.
    """

    def __init__(self, issuer: str, http: httpx.AsyncClient, times: KeyTimes) -> None:
        self._issuer = issuer
        self._http = http
        self._times = times
        self._keys: KeySet | None = None
        self._fetch: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        # When the last fetch ended, by the loop's clock, and whether it succeeded.
        self._fetched_at: float | None = None
        self._reachable = False

    async def current(self) -> KeySet:
        """Returns the keys; fetches them if there are none yet. Raises IssuerUnavailableError."""
        if self._keys is None:
            await self._fetch_unless_recent(self._times.first_pause)
        if self._keys is None:
            raise IssuerUnavailableError(
                "Access tokens cannot be checked: the issuer's keys could not be fetched yet. Try again."
            )
        return self._keys

    async def newest(self) -> KeySet:
        """Returns the keys, fetched again for a token with an unknown key unless they have just been fetched.

        Raises IssuerUnavailableError if they could not be fetched, so that the key may exist.
        """
        await self._fetch_unless_recent(self._times.pause)
        if self._keys is None or not self._reachable:
            raise IssuerUnavailableError("The token's key is not known, and the issuer does not answer. Try again.")
        return self._keys

    async def aclose(self) -> None:
        """Stops the background tasks."""
        tasks = [task for task in (self._refreshing, self._fetch) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch_unless_recent(self, pause: float) -> None:
        if self._fetch is None:
            now = asyncio.get_running_loop().time()
            if self._fetched_at is not None and now - self._fetched_at < pause:
                return
            # In a context of its own: it belongs to no request, nor do its log lines.
            self._fetch = asyncio.create_task(self._fetch_once(), context=Context())
        # Shielded: a caller that gives up must not cancel the fetch of the others.
        await asyncio.shield(self._fetch)

    async def _fetch_once(self) -> None:
        try:
            async with asyncio.timeout(self._times.timeout):
                self._keys = await self._fetch_keys()
            self._reachable = True
        # Whatever the issuer sends: an exception would end the refreshes. The reasons contain no token.
        except Exception as error:
            self._reachable = False
            log.warning(
                "the keys of the OIDC issuer could not be fetched",
                issuer=self._issuer,
                error=f"{type(error).__name__}: {error}"[:300],
                has_keys=self._keys is not None,
            )
        finally:
            self._fetched_at = asyncio.get_running_loop().time()
            self._fetch = None
        if self._refreshing is None and self._keys is not None:
            self._refreshing = asyncio.create_task(self._refresh())

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(self._times.refresh if self._reachable else self._times.pause)
            await self._fetch_unless_recent(self._times.pause)

    async def _fetch_keys(self) -> KeySet:
        discovery = await self._get_json(self._issuer.rstrip("/") + _DISCOVERY)
        if not isinstance(discovery, dict) or discovery.get("issuer") != self._issuer:
            raise ValueError("the discovery document is not of this issuer: its `issuer` differs from sevenfold.toml")
        url = discovery.get("jwks_uri")
        if not isinstance(url, str) or not self._may_hold_keys(url):
            raise ValueError("the discovery document's `jwks_uri` is not an https URL")
        return parse_key_set(await self._get_json(url))

    def _may_hold_keys(self, url: str) -> bool:
        return url.startswith("https://") or (is_on_loopback(self._issuer) and is_on_loopback(url))

    async def _get_json(self, url: str) -> object:
        async with self._http.stream("GET", url, headers=_HEADERS, follow_redirects=False) as response:
            if response.status_code != httpx.codes.OK:
                raise ValueError(f"{response.url.host} answered {response.status_code}")
            return from_json(await read_at_most(response, _MAX_DOCUMENT_BYTES))
