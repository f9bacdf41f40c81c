"""Reads streams as a client does, with a parser of the tests' own."""

import httpx

from bench.server_sent_events import Event, events
from tests.support.stack import Stack


async def started(stack: Stack, query: str = "hi", *, api: httpx.AsyncClient | None = None, **body: object) -> str:
    """Starts a stream and leaves it; returns its id."""
    http = api or stack.http
    async with http.stream("POST", "/api/agent/stream", json={"query": query, **body}) as answer:
        assert answer.status_code == 200, await answer.aread()
        return answer.headers["X-Stream-Id"]


async def read(
    http: httpx.AsyncClient, stream_id: str, after: int = 0, *, chunks: int | None = None, **params: str
) -> list[Event]:
    """Everything after an index; with `chunks` until so many of them came, then the connection is cut."""
    found: list[Event] = []
    headers = {"Last-Event-ID": str(after)} if after else {}
    url = f"/api/agent/stream/{stream_id}"
    async with http.stream("GET", url, headers=headers, params=params) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for event in events(answer):
            found.append(event)
            chunks = chunks - 1 if chunks is not None and event.is_chunk else chunks
            if chunks == 0:
                break
    return found


def text_of(found: list[Event]) -> str:
    """What a reader has at the end: the chunks, from the last reset on."""
    text = ""
    for event in found:
        if event.name == "message":
            text = "" if event.data.get("reset") else text + event.data["chunk"]
    return text


def indexes(found: list[Event]) -> list[int]:
    return [int(event.id) for event in found if event.id is not None and event.name == "message"]


def last_index(found: list[Event]) -> int:
    return indexes(found)[-1] if indexes(found) else 0
