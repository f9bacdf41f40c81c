"""One POST to an agent's server, limited in size and time and never repeated."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx
from pydantic import JsonValue
from pydantic_core import to_json

from sevenfold.adapters.agents.remote.error_mapping import (
    BadAnswerError,
    LargeAnswerError,
    extract_explanation,
    to_agent_error,
)
from sevenfold.adapters.agents.remote.event_frames import parse_json_lines, parse_sse
from sevenfold.adapters.outbound.bounded import decompress_pieces
from sevenfold.adapters.outbound.connections import KEPT_IDLE_SECONDS
from sevenfold.adapters.tracing import record, tracer
from sevenfold.contracts.agents.errors import AgentError
from sevenfold.contracts.agents.interface import HOPS_HEADER, AgentContext
from sevenfold.contracts.json.strict import JsonLimitError, check_value, parse_json
from sevenfold.contracts.tracing import Span, SpanKind, TraceContext

_CONNECT_SECONDS = 5.0
_MAX_BYTES = 20_000_000
_MAX_EXPLANATION = 400
_DRAIN_SECONDS = 0.1
_KEPT_CONNECTIONS = 100

_AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")

_SSE, _NDJSON = "text/event-stream", ("application/x-ndjson", "application/jsonl", "application/json-seq")
# Media types that may be a stream or a whole answer, and the first bytes of server-sent events.
_AMBIGUOUS_TYPES = frozenset({"", "text/plain", "application/octet-stream"})
_EVENT_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_PREFIX_BYTES = 6
_BOM = b"\xef\xbb\xbf"


class Upstream:
    """An agent's server. Raises only AgentError.

    `idle_timeout_seconds`: the longest pause in the server's response, in seconds. `api_key` is sent as a bearer
    token and removed from error details. `headers` are sent with every request.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None,
        idle_timeout_seconds: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._url = url
        self._api_key = api_key
        sent = {
            "User-Agent": "Sevenfold",
            "Accept": f"application/json, {_SSE}, {_NDJSON[0]}",
            "Accept-Encoding": "gzip",
            **(headers or {}),
        }
        if api_key:
            sent["Authorization"] = f"Bearer {api_key}"
            if httpx.URL(url).host.endswith(_AZURE_HOSTS):  # Its older addresses know keys by this header alone.
                sent["api-key"] = api_key
        self._client = httpx.AsyncClient(
            headers=sent,
            timeout=httpx.Timeout(idle_timeout_seconds, connect=_CONNECT_SECONDS),
            # Unlimited: admission control limits the calls, and none may wait here unseen.
            limits=httpx.Limits(
                max_connections=None,
                max_keepalive_connections=_KEPT_CONNECTIONS,
                keepalive_expiry=KEPT_IDLE_SECONDS,
            ),
            follow_redirects=False,
            # No cookies: the calls of all tenants share this client, and a session of one must not serve another.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        )

    @asynccontextmanager
    async def post(self, body: Mapping[str, Any], context: AgentContext) -> AsyncIterator["UpstreamResponse"]:
        """Posts the body and yields the response if it is successful. Raises AgentError."""
        exchange = _start_exchange(context)
        headers = {"Content-Type": "application/json", **_context_headers(context, exchange)}
        status: int | None = None
        started_at = time.time()
        try:
            async with self._client.stream("POST", self._url, content=to_json(body), headers=headers) as response:
                status = response.status_code
                if not response.is_success:
                    raise to_agent_error(response, await _read_explanation(response))
                answer = UpstreamResponse(response)
                yield answer
                await answer.drain()
        except AgentError as error:
            raise self._redact(error) from None
        # `from None`: an httpx error holds the request, and with it the key.
        except (httpx.HTTPError, httpx.InvalidURL, BadAnswerError, LargeAnswerError) as error:
            raise to_agent_error(error) from None
        finally:
            self._record_exchange(context, exchange, started_at, status)

    def _record_exchange(
        self, context: AgentContext, exchange: TraceContext | None, started_at: float, status: int | None
    ) -> None:
        if exchange is None:
            return
        answered: dict[str, str | int] = {} if status is None else {"http.response.status_code": status}
        record(
            Span(
                name="POST",
                kind=SpanKind.CLIENT,
                context=exchange,
                parent=TraceContext.parse(context.traceparent),
                started_at=started_at,
                ended_at=time.time(),
                attributes={
                    "http.request.method": "POST",
                    "server.address": httpx.URL(self._url).host,
                    **answered,
                },
                error=None if status is not None and status < 400 else str(status or "no answer"),
            )
        )

    def _redact(self, error: AgentError) -> AgentError:
        """Removes our key, which the server may repeat, before truncating: a truncated key is still a secret."""
        detail = error.detail.replace(self._api_key, "…") if self._api_key else error.detail
        return type(error)(detail[:_MAX_EXPLANATION], retry_after=error.retry_after, pointer=error.pointer)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._client.aclose()


class UpstreamResponse:
    """A response whose body is still unread. `Upstream.post` converts the exceptions of reading it."""

    def __init__(self, response: httpx.Response) -> None:
        self._pieces: AsyncIterator[bytes] = decompress_pieces(response)
        self._type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    async def is_streamed(self) -> bool:
        """Whether the body is a sequence of frames. Some servers send events as plain text or without a media type,
        so the first bytes decide then.
        """
        if self._type in _AMBIGUOUS_TYPES:
            await self._detect_type()
        return self._type == _SSE or self._type in _NDJSON

    async def _detect_type(self) -> None:
        prefix = b""
        pieces = self._pieces
        async for piece in pieces:
            prefix += piece
            if len(prefix.removeprefix(_BOM).lstrip()) >= _PREFIX_BYTES:
                break
        if prefix.removeprefix(_BOM).lstrip().startswith(_EVENT_FIELDS):
            self._type = _SSE
        self._pieces = _chain(prefix, pieces)

    async def read_json(self) -> JsonValue:
        """Returns the body as one JSON value."""
        return parse_value(await _read(self._pieces, _MAX_BYTES))

    async def frames(self, *, lenient: bool = False) -> AsyncIterator[str]:
        """Yields the frames of a streamed body. `lenient`: the last event needs no blank line."""
        if self._type == _SSE:
            frames = parse_sse(self._pieces, _MAX_BYTES, lenient=lenient)
        else:
            frames = parse_json_lines(self._pieces, _MAX_BYTES)
        async for frame in frames:
            yield frame

    async def drain(self) -> None:
        """Reads the rest of the body for up to 0.1 s: only then the connection is reusable."""
        with suppress(TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                async for _ in self._pieces:
                    pass


def parse_value(text: str | bytes) -> JsonValue:
    """Parses a JSON value. Raises BadAnswerError."""
    try:
        return parse_json(text)
    except JsonLimitError as error:
        raise BadAnswerError(str(error)) from None
    except ValueError:
        raise BadAnswerError("it is not JSON") from None


def parse_frame(frame: str) -> JsonValue:
    """Parses the JSON value of a frame, which may end in half a character whose other half is in the next frame.

    Raises BadAnswerError.
    """
    try:
        return parse_json(frame)
    except JsonLimitError as error:
        raise BadAnswerError(str(error)) from None
    except ValueError:
        if "\\ud" not in frame.lower():
            raise BadAnswerError("it is not JSON") from None
    try:
        value: JsonValue = json.loads(frame, parse_constant=_refuse_constant)
        check_value(value)
    except (ValueError, RecursionError):
        raise BadAnswerError("it is not JSON") from None
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


async def _read_explanation(response: httpx.Response) -> str:
    try:
        text = extract_explanation(parse_json(await _read(decompress_pieces(response), _MAX_BYTES)))
    except (ValueError, httpx.HTTPError, LargeAnswerError):
        return ""
    return " ".join(text.split())


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


async def _read(pieces: AsyncIterator[bytes], max_bytes: int) -> bytes:
    found = bytearray()
    async for piece in pieces:
        found += piece
        if len(found) > max_bytes:
            raise LargeAnswerError(max_bytes)
    return bytes(found)


def _start_exchange(context: AgentContext) -> TraceContext | None:
    """Returns the context of the exchange's span; None without traces."""
    parent = TraceContext.parse(context.traceparent) if tracer() is not None else None
    return None if parent is None else parent.child()


def _context_headers(context: AgentContext, exchange: TraceContext | None) -> dict[str, str]:
    """Request id, trace context, and the remaining seconds: a duration, because clocks differ."""
    headers = {"X-Request-Timeout": f"{context.remaining_seconds():.3f}", HOPS_HEADER: str(context.hops + 1)}
    if context.request_id:
        headers["X-Request-Id"] = context.request_id
    if exchange is not None or context.traceparent:
        headers["traceparent"] = str(exchange or context.traceparent)
    return headers
