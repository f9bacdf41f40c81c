"""One POST to an agent's server: bounded, never repeated, its outcome a verdict."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
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
from sevenfold.contracts.agent import AgentContext
from sevenfold.contracts.strict_json import JsonLimitError, check_value, parse_json
from sevenfold.contracts.verdicts import AgentError

_CONNECT_SECONDS = 5.0
_MAX_BYTES = 20_000_000
_MAX_EXPLANATION = 400
_DRAIN_SECONDS = 0.1
_KEPT_CONNECTIONS = 100

_SSE, _NDJSON = "text/event-stream", ("application/x-ndjson", "application/jsonl", "application/json-seq")
# Types that do not tell events from a whole answer, and how events begin.
_AMBIGUOUS_TYPES = frozenset({"", "text/plain", "application/octet-stream"})
_EVENT_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_PREFIX_BYTES = 6
_BOM = b"\xef\xbb\xbf"


class Upstream:
    """An agent's server. Raises AgentErrors, nothing else.

    `idle_timeout_seconds`: seconds that it may say nothing. `api_key` goes along as a bearer token, and is kept out
    of what is told of refusals.
    """

    def __init__(self, url: str, *, api_key: str | None, idle_timeout_seconds: float) -> None:
        self._url = url
        self._api_key = api_key
        headers = {
            "User-Agent": "Sevenfold",
            "Accept": f"application/json, {_SSE}, {_NDJSON[0]}",
            "Accept-Encoding": "gzip",
        }
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(idle_timeout_seconds, connect=_CONNECT_SECONDS),
            # how many calls run at once is decided elsewhere: none may wait here unseen
            limits=httpx.Limits(
                max_connections=None,
                max_keepalive_connections=_KEPT_CONNECTIONS,
                keepalive_expiry=KEPT_IDLE_SECONDS,
            ),
            follow_redirects=False,
        )

    @asynccontextmanager
    async def post(self, body: Mapping[str, Any], context: AgentContext) -> AsyncIterator["UpstreamResponse"]:
        """The answer to a POST, if it is a success."""
        headers = {"Content-Type": "application/json", **_context_headers(context)}
        try:
            async with self._client.stream("POST", self._url, content=to_json(body), headers=headers) as response:
                if not response.is_success:
                    raise to_agent_error(response, await _read_explanation(response))
                answer = UpstreamResponse(response)
                yield answer
                await answer.drain()
        except AgentError as error:
            raise self._redact(error) from None
        # `from None`: an httpx error holds the request, and with it the key
        except (httpx.HTTPError, httpx.InvalidURL, BadAnswerError, LargeAnswerError) as error:
            raise to_agent_error(error) from None

    def _redact(self, error: AgentError) -> AgentError:
        """Without our key, which a server may repeat, and then not too long: a key that is cut is one still."""
        detail = error.detail.replace(self._api_key, "…") if self._api_key else error.detail
        return type(error)(detail[:_MAX_EXPLANATION], retry_after=error.retry_after, pointer=error.pointer)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._client.aclose()


class UpstreamResponse:
    """An answer whose body has not been read yet. Reading raises what `Upstream.post` turns into verdicts."""

    def __init__(self, response: httpx.Response) -> None:
        self._pieces: AsyncIterator[bytes] = decompress_pieces(response)
        self._type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    async def is_streamed(self) -> bool:
        """Whether it comes in frames. Some servers send events as plain text or name no type: the beginning tells."""
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
        """The one JSON value that it is."""
        return parse_value(await _read(self._pieces, _MAX_BYTES))

    async def frames(self, *, lenient: bool = False) -> AsyncIterator[str]:
        """The frames of one that is streamed, each JSON as a rule. `lenient`: the last event needs no blank line."""
        if self._type == _SSE:
            frames = parse_sse(self._pieces, _MAX_BYTES, lenient=lenient)
        else:
            frames = parse_json_lines(self._pieces, _MAX_BYTES)
        async for frame in frames:
            yield frame

    async def drain(self) -> None:
        """Reads what is left, if it comes at once: only then the connection can serve another call."""
        with suppress(TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                async for _ in self._pieces:
                    pass


def parse_value(text: str | bytes) -> JsonValue:
    """A JSON value. Raises BadAnswerError."""
    try:
        return parse_json(text)
    except JsonLimitError as error:
        raise BadAnswerError(str(error)) from None
    except ValueError:
        raise BadAnswerError("it is not JSON") from None


def parse_frame(frame: str) -> JsonValue:
    """The JSON value of a frame, in which a character may be cut in two: its other half comes with the next frame.

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
    raise ValueError(f"{name} is no JSON")


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


def _context_headers(context: AgentContext) -> dict[str, str]:
    """Whose request it is for, and how many seconds there are left: a duration, since clocks differ."""
    headers = {"X-Request-Timeout": f"{context.remaining_seconds():.3f}"}
    if context.request_id:
        headers["X-Request-Id"] = context.request_id
    if context.traceparent:
        headers["traceparent"] = context.traceparent
    return headers
