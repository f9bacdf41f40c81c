"""One POST to an agent's server: bounded, never repeated, its outcome a verdict."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
from pydantic import JsonValue
from pydantic_core import to_json

from adapters.agents.event_frames import json_lines, sse_data
from adapters.agents.http_verdicts import BadAnswerError, LargeAnswerError, agent_error, explanation
from adapters.outbound.bounded import unpacked_pieces
from adapters.outbound.connections import KEPT_IDLE_SECONDS
from contracts.agent import AgentContext
from contracts.strict_json import JsonLimitError, check_value, parse_json
from contracts.verdicts import AgentError

_CONNECT_SECONDS = 5.0
_MOST_BYTES = 20_000_000
_MOST_EXPLANATION = 400
_LAST_WORDS_SECONDS = 0.1
_KEPT_CONNECTIONS = 100

_SSE, _NDJSON = "text/event-stream", ("application/x-ndjson", "application/jsonl", "application/json-seq")
# Types that do not tell events from a whole answer, and how events begin.
_UNTOLD = frozenset({"", "text/plain", "application/octet-stream"})
_EVENT_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_ENOUGH = 6
_BOM = b"\xef\xbb\xbf"


class Upstream:
    """An agent's server. Raises AgentErrors, nothing else.

    `silence`: seconds that it may say nothing. `api_key` goes along as a bearer token, and is kept out of what is
    told of refusals.
    """

    def __init__(self, url: str, *, api_key: str | None, silence: float) -> None:
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
            timeout=httpx.Timeout(silence, connect=_CONNECT_SECONDS),
            # how many calls run at once is decided elsewhere: none may wait here unseen
            limits=httpx.Limits(
                max_connections=None,
                max_keepalive_connections=_KEPT_CONNECTIONS,
                keepalive_expiry=KEPT_IDLE_SECONDS,
            ),
            follow_redirects=False,
        )

    @asynccontextmanager
    async def asked(self, body: Mapping[str, Any], context: AgentContext) -> AsyncIterator["UpstreamAnswer"]:
        """The answer to a POST, if it is a success."""
        headers = {"Content-Type": "application/json", **_surroundings(context)}
        try:
            async with self._client.stream("POST", self._url, content=to_json(body), headers=headers) as response:
                if not response.is_success:
                    raise agent_error(response, await _explanation(response))
                answer = UpstreamAnswer(response)
                yield answer
                await answer.finish()
        except AgentError as error:
            raise self._redacted(error) from None
        # `from None`: an httpx error holds the request, and with it the key
        except (httpx.HTTPError, httpx.InvalidURL, BadAnswerError, LargeAnswerError) as error:
            raise agent_error(error) from None

    def _redacted(self, error: AgentError) -> AgentError:
        """Without our key, which a server may repeat, and then not too long: a key that is cut is one still."""
        said = error.detail.replace(self._api_key, "…") if self._api_key else error.detail
        return type(error)(said[:_MOST_EXPLANATION], retry_after=error.retry_after, pointer=error.pointer)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._client.aclose()


class UpstreamAnswer:
    """An answer whose body has not been read yet. Reading raises what `Upstream.asked` turns into verdicts."""

    def __init__(self, response: httpx.Response) -> None:
        self._pieces: AsyncIterator[bytes] = unpacked_pieces(response)
        self._type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    async def streamed(self) -> bool:
        """Whether it comes in frames. Some servers send events as plain text or name no type: the beginning tells."""
        if self._type in _UNTOLD:
            await self._look_at_the_beginning()
        return self._type == _SSE or self._type in _NDJSON

    async def _look_at_the_beginning(self) -> None:
        beginning = b""
        pieces = self._pieces
        async for piece in pieces:
            beginning += piece
            if len(beginning.removeprefix(_BOM).lstrip()) >= _ENOUGH:
                break
        if beginning.removeprefix(_BOM).lstrip().startswith(_EVENT_FIELDS):
            self._type = _SSE
        self._pieces = _chained(beginning, pieces)

    async def whole(self) -> JsonValue:
        """The one JSON value that it is."""
        return parsed(await _read(self._pieces, _MOST_BYTES))

    async def frames(self, *, lenient: bool = False) -> AsyncIterator[str]:
        """The frames of one that is streamed, each JSON as a rule. `lenient`: the last event needs no blank line."""
        if self._type == _SSE:
            frames = sse_data(self._pieces, _MOST_BYTES, lenient=lenient)
        else:
            frames = json_lines(self._pieces, _MOST_BYTES)
        async for frame in frames:
            yield frame

    async def finish(self) -> None:
        """Reads what is left, if it comes at once: only then the connection can serve another call."""
        with suppress(TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                async for _ in self._pieces:
                    pass


def parsed(text: str | bytes) -> JsonValue:
    """A JSON value. Raises BadAnswerError."""
    try:
        return parse_json(text)
    except JsonLimitError as error:
        raise BadAnswerError(str(error)) from None
    except ValueError:
        raise BadAnswerError("it is not JSON") from None


def parsed_frame(frame: str) -> JsonValue:
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


async def _explanation(response: httpx.Response) -> str:
    try:
        said = explanation(parse_json(await _read(unpacked_pieces(response), _MOST_BYTES)))
    except (ValueError, httpx.HTTPError, LargeAnswerError):
        return ""
    return " ".join(said.split())


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


async def _read(pieces: AsyncIterator[bytes], most: int) -> bytes:
    found = bytearray()
    async for piece in pieces:
        found += piece
        if len(found) > most:
            raise LargeAnswerError(most)
    return bytes(found)


def _surroundings(context: AgentContext) -> dict[str, str]:
    """Whose request it is for, and how many seconds there are left: a duration, since clocks differ."""
    headers = {"X-Request-Timeout": f"{context.remaining_seconds():.3f}"}
    if context.request_id:
        headers["X-Request-Id"] = context.request_id
    if context.traceparent:
        headers["traceparent"] = context.traceparent
    return headers
