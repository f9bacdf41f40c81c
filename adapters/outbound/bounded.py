"""Reads responses of untrusted servers, limited in bytes and time."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import httpx

from sevenfold.adapters.outbound.addresses import UnsafeUrlError
from sevenfold.adapters.outbound.connections import UnresolvableError
from sevenfold.adapters.outbound.guarded_http import LOCATION
from sevenfold.adapters.outbound.urls import check_url

_GZIP = ("gzip", "x-gzip")
_RETRYABLE_STATUSES = frozenset({408, 425, 429})
_MAX_CONTENT_TYPE = 200
_PIECE_BYTES = 65_536


class TooLargeError(Exception):
    """The response exceeds the limit. The message is safe to show."""


class FetchError(Exception):
    """The document could not be fetched. The message states the reason to the user and contains only the URL's host.

    `temporary`: a later attempt may succeed.
    """

    def __init__(self, message: str, *, temporary: bool) -> None:
        super().__init__(message)
        self.temporary = temporary


@dataclass(frozen=True)
class Fetched:
    """A document. `content_type` as its host sent it, or empty; `url` is the final URL, including its query."""

    data: bytes
    content_type: str
    url: str


async def read_at_most(response: httpx.Response, limit: int) -> bytes:
    """Returns the whole decompressed body of a streamed response, at most `limit` bytes.

    Raises TooLargeError, httpx.DecodingError and httpx.TransportError.
    """
    too_large = TooLargeError(f"The answer is larger than {limit} bytes.")
    announced = response.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced) > _max_compressed(limit):
        raise too_large
    data, whole = await _read_up_to(response, limit)
    if not whole:
        raise too_large
    return data


async def read_prefix(response: httpx.Response, limit: int) -> bytes:
    """Returns the first `limit` bytes of a streamed response's body, decompressed, and closes the response.

    A body that cannot be decompressed counts as empty. Raises httpx.TransportError.
    """
    try:
        data, _ = await _read_up_to(response, limit)
    except httpx.DecodingError:
        data = b""
    await response.aclose()
    return data


async def decompress_pieces(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yields the decompressed body of a streamed response in pieces of at most 64 kB.

    Raises httpx.DecodingError and httpx.TransportError.
    """
    unpacking = _Decompressor(response)
    async for packed in response.aiter_raw():
        for piece in unpacking.decompress_all(packed):
            yield piece
    if response.num_bytes_downloaded:
        unpacking.check_end()


async def fetch(
    client: httpx.AsyncClient, url: str, *, limit: int, seconds: float, allow_loopback: bool, hops: int = 3
) -> Fetched:
    """Fetches the document at a URL, at most `limit` bytes, within `seconds`, after at most `hops` redirects.

    `client` is a guarded one. Raises FetchError.
    """
    # `from None`: an httpx error holds the request, and with it the URL's secrets.
    try:
        async with asyncio.timeout(seconds):
            return await _follow(client, url, limit, hops, allow_loopback=allow_loopback)
    except (TimeoutError, httpx.TimeoutException):
        raise FetchError(
            "Fetching the document timed out. Try later, or use a faster host.", temporary=True
        ) from None
    except UnsafeUrlError as error:
        raise FetchError(str(error), temporary=False) from None
    except TooLargeError:
        raise FetchError(
            f"The document is larger than {limit} bytes. Send a smaller one, or a part of it.", temporary=False
        ) from None
    except UnresolvableError:
        raise FetchError(
            "The host name of the document's URL could not be resolved. Check its spelling.", temporary=True
        ) from None
    except httpx.DecodingError:
        raise FetchError(
            "The document's host sent it in a content coding other than gzip, or damaged. Have it sent uncompressed.",
            temporary=False,
        ) from None
    except httpx.TransportError:
        raise FetchError(
            "The connection to the document's host failed. Check that it can be reached by https from the internet.",
            temporary=True,
        ) from None


async def _follow(client: httpx.AsyncClient, url: str, limit: int, hops: int, *, allow_loopback: bool) -> Fetched:
    for _ in range(hops + 1):
        here = check_url(url, allow_loopback=allow_loopback)
        async with client.stream("GET", here) as response:
            location = response.extensions[LOCATION]
            if not (response.is_redirect and location):
                return await _read_document(response, limit)
        url = _join_url(here, location)
    raise FetchError(
        f"The document's URL redirects more often than allowed ({hops}). Use the final URL.", temporary=False
    )


async def _read_document(response: httpx.Response, limit: int) -> Fetched:
    status = response.status_code
    if not response.is_success:
        temporary = status >= 500 or status in _RETRYABLE_STATUSES
        advice = "Try later." if temporary else "Check that it is readable without signing in."
        raise FetchError(f"{response.url.host} answered {status} for the document. {advice}", temporary=temporary)
    data = await read_at_most(response, limit)
    content_type = response.headers.get("Content-Type", "")[:_MAX_CONTENT_TYPE]
    return Fetched(data=data, content_type=content_type, url=str(response.url))


def _join_url(base: httpx.URL, location: str) -> str:
    try:
        return str(base.join(location))
    except (httpx.InvalidURL, ValueError):
        raise FetchError(
            "The document's URL redirects to an invalid URL. Use the final URL.", temporary=False
        ) from None


async def _read_up_to(response: httpx.Response, limit: int) -> tuple[bytes, bool]:
    """Returns the first `limit` bytes, decompressed, and whether that was all."""
    unpacking = _Decompressor(response)
    found = bytearray()
    async for piece in response.aiter_raw():
        found += unpacking.decompress(piece, limit + 1 - len(found))
        # Compressed bytes count too: many of them may decompress to nothing.
        if len(found) > limit or response.num_bytes_downloaded > _max_compressed(limit):
            return bytes(found[:limit]), False
    if response.num_bytes_downloaded:
        unpacking.check_end()
    return bytes(found), True


def _max_compressed(limit: int) -> int:
    # gzip adds far less to incompressible data.
    return limit + limit // 1000 + 1024


class _Decompressor:
    """Decompresses gzip up to a given size.

    httpx decompresses whole pieces and nested codings: the 64 kB that it reads at a time can hold gigabytes.
    """

    def __init__(self, response: httpx.Response) -> None:
        coding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if coding not in ("", "identity", *_GZIP):
            raise httpx.DecodingError("a content coding other than gzip", request=response.request)
        self._request = response.request
        self._inflating = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS) if coding in _GZIP else None

    def decompress(self, piece: bytes, max_bytes: int) -> bytes:
        """Returns at most `max_bytes` (1 or more) of the next bytes; further ones are dropped."""
        if self._inflating is None:
            return piece[:max_bytes]
        try:
            found = self._inflating.decompress(piece, max_bytes)
        except zlib.error:
            raise httpx.DecodingError("not gzip", request=self._request) from None
        if self._inflating.unused_data:  # zlib would collect all that follows
            raise httpx.DecodingError("gzip data has trailing bytes", request=self._request)
        return found

    def decompress_all(self, packed: bytes) -> Iterator[bytes]:
        """Yields all decompressed bytes, 64 kB at a time, so that the consumer can stop before the memory is full."""
        if self._inflating is None:
            yield packed
            return
        while piece := self.decompress(packed, _PIECE_BYTES):
            yield piece
            packed = self._inflating.unconsumed_tail

    def check_end(self) -> None:
        """Raises httpx.DecodingError if the data is truncated."""
        if self._inflating is not None and not self._inflating.eof:
            raise httpx.DecodingError("gzip data is truncated", request=self._request)
