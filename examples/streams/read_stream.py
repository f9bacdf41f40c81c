"""Reads a Sevenfold stream to its end, however often the connection is cut. It needs httpx; copy it and change it.

python examples/streams/read_stream.py "Write a blog post about AI agents" --agent simulator
"""

import argparse
import asyncio
import codecs
import io
import json
import random
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

# Seconds between two attempts to connect; doubled from the first to the longest.
FIRST_PAUSE, MAX_PAUSE = 0.2, 5.0

PASSING = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class Event:
    """`kind` is chunk, reset, progress or done, `data` its JSON, `id` the cursor if it has one."""

    kind: str
    data: dict[str, Any]
    id: str | None = None


class StreamFailedError(Exception):
    """It failed for good. `problem` has a title and mostly a detail and a status (RFC 9457)."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("detail") or problem.get("title"))
        self.problem = problem


class _CutError(Exception):
    """The connection is gone, or there was none; `retry_after` is in seconds."""

    def __init__(self, problem: dict[str, Any], retry_after: float = 0.0) -> None:
        super().__init__(problem)
        self.problem = problem
        self.retry_after = retry_after


class StreamReader:
    """One question and the stream of its answer.

    `client` has the server's address as its `base_url`; `body` is `{"query": …, "agent"?: …, "params"?: …}`. A
    connection that is silent for `silence` seconds counts as cut; after `patience` seconds in which the server could
    not be reached it gives up. `location` is where the stream can be read again, as soon as the server has sent it.
    """

    def __init__(
        self, client: httpx.AsyncClient, body: dict[str, Any], *, patience: float = 60.0, silence: float = 30.0
    ) -> None:
        self.location: str | None = None
        self.last_id: str | None = None
        self._client = client
        self._body = body
        self._patience = patience
        self._silence = silence
        # With it, a start whose answer was lost can be sent again: the answer is the same run's stream.
        self._key = str(uuid.uuid4())
        self._lost_at: float | None = None

    async def events(self) -> AsyncGenerator[Event, None]:
        """The events in order, each chunk once, `done` last; a `reset` discards everything before it.

        Raises StreamFailedError: a request that is refused, a run that failed, a server that stays away.
        """
        pause = FIRST_PAUSE
        while True:
            try:
                async with aclosing(self._connection()) as events:
                    async for event in events:
                        pause = FIRST_PAUSE
                        yield event
                        if event.kind == "done":
                            return
            except _CutError as cut:
                await self._wait(cut, pause * random.uniform(0.5, 1))
                pause = min(MAX_PAUSE, pause * 2)

    async def cancel(self) -> None:
        """Stops the run; `events` then ends with a `done` whose status is `cancelled`. Raises httpx.HTTPError."""
        if self.location is None:
            raise ValueError("The server has not sent the stream's address yet.")
        (await self._client.post(f"{self.location}/cancel")).raise_for_status()

    async def _connection(self) -> AsyncGenerator[Event, None]:
        """The events of one connection. Raises _CutError when it ends before they do, StreamFailedError."""
        parser = EventParser()
        try:
            async with self._request() as answer:
                await _check(answer)
                self.location = answer.headers["Location"]
                self._lost_at = None
                async for piece in answer.aiter_bytes():
                    for event in parser.feed(piece):
                        if event.kind == "error":
                            raise StreamFailedError(event.data)
                        if event.kind == "reconnect":
                            raise _CutError({"title": "The server stops"})
                        self.last_id = event.id or self.last_id
                        yield event
        except (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError) as error:
            raise _CutError({"title": "The connection is lost", "detail": repr(error)}) from error
        raise _CutError({"title": "The connection was closed before the stream's end"})

    def _request(self) -> AbstractAsyncContextManager[httpx.Response]:
        """Opens a connection: to the start, or to where we were."""
        headers = {"Accept": "text/event-stream"}
        if self.location is None:
            headers["Idempotency-Key"] = self._key
            return self._client.stream(
                "POST", "/api/agent/stream", json=self._body, headers=headers, timeout=self._silence
            )
        if self.last_id is not None:
            headers["Last-Event-ID"] = self.last_id
        return self._client.stream("GET", self.location, headers=headers, timeout=self._silence)

    async def _wait(self, cut: _CutError, pause: float) -> None:
        now = time.monotonic()
        self._lost_at = now if self._lost_at is None else self._lost_at
        pause = max(pause, cut.retry_after)
        if now + pause > self._lost_at + self._patience:
            raise StreamFailedError(cut.problem) from cut
        await asyncio.sleep(pause)


class EventParser:
    """Server-sent events out of bytes, wherever these are cut."""

    def __init__(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
        self._rest = ""
        self._begin()

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The events that these bytes complete."""
        # Not `splitlines`, nor httpx's `aiter_lines`: they split at U+2028 too, which JSON may hold.
        *lines, self._rest = (self._rest + self._decoder.decode(piece)).split("\n")
        for line in lines:
            if line:
                self._field(line)
                continue
            if self._data:
                yield self._event()
            self._begin()

    def _begin(self) -> None:
        self._name = ""
        self._data: list[str] = []
        self._id: str | None = None

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")  # a comment has no name
        value = value.removeprefix(" ")
        if name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        elif name == "id":
            self._id = value

    def _event(self) -> Event:
        data = json.loads("\n".join(self._data))
        return Event(self._name or ("reset" if data.get("reset") else "chunk"), data, self._id)


async def _check(answer: httpx.Response) -> None:
    """Raises what an answer is that is no stream: _CutError if it will pass, else StreamFailedError."""
    media_type = answer.headers.get("Content-Type", "").partition(";")[0]
    if answer.status_code == 200 and media_type == "text/event-stream":
        return
    await answer.aread()
    status = answer.status_code
    is_problem = media_type == "application/problem+json"
    problem = answer.json() if is_problem else {"title": f"The answer is a {status}, not a stream", "status": status}
    if answer.status_code in PASSING:
        raise _CutError(problem, _retry_after(answer))
    raise StreamFailedError(problem)


def _retry_after(answer: httpx.Response) -> float:
    """Seconds; 0 if the header is missing or unreadable."""
    value = answer.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    try:
        return (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return 0.0


async def main() -> None:
    """Prints the answer to stdout as it comes, everything else to stderr."""
    arguments = argparse.ArgumentParser(description="Asks an agent, and prints its answer while it is given.")
    arguments.add_argument("query")
    arguments.add_argument("--url", default="http://127.0.0.1:8000")
    arguments.add_argument("--agent")
    asked = arguments.parse_args()
    body = {"query": asked.query} | ({"agent": asked.agent} if asked.agent else {})
    async with httpx.AsyncClient(base_url=asked.url) as client:
        try:
            await _print(StreamReader(client, body))
        except StreamFailedError as failure:
            sys.exit(f"\n{failure}")


async def _print(reader: StreamReader) -> None:
    async with aclosing(reader.events()) as events:
        async for event in events:
            if event.kind == "chunk":
                sys.stdout.write(event.data["chunk"])
                sys.stdout.flush()
            elif event.kind == "reset":
                sys.stderr.write("\n(a new attempt starts)\n")
            elif event.kind == "done":
                sys.stderr.write(f"\n({event.data['status']})\n")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(130)
