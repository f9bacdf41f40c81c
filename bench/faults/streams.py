"""A reader of streams who is cut off, by faults and by himself, and goes on with `Last-Event-ID`."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import httpx

from bench.faults.agents import pieces_of
from bench.faults.api_client import KEY, check_refusal, outcome_of, problem_in
from bench.faults.ledger import DoubledError, LostError, RefusedError, Run
from bench.faults.patterns import World, check
from bench.server_sent_events import Event, events

# So many connections the reader cuts himself.
_CUT = 0.3

_SILENT_SECONDS = 60.0


@dataclass
class Received:
    """What a reader has of a stream."""

    last: int = 0
    text: str = ""
    # Every chunk that ever came, by index.
    chunks: dict[int, str] = field(default_factory=dict)
    ended: bool = False
    # The log has lost the next chunks and reports it.
    gone: bool = False
    # What a connection ended with in the place of `done` or `reconnect`.
    misled: str = ""

    def take(self, event: Event) -> None:
        """Add what came. Raises LostError at a gap, DoubledError if something comes again."""
        if event.name == "done":
            check(event.data["status"], "completed", "the stream's end")
            self.ended = True
        elif event.name == "error":
            self._take_error(event.data)
        elif event.name == "message":
            self._take_chunk(event.data)

    def _take_error(self, problem: dict[str, Any]) -> None:
        if problem.get("code"):
            raise LostError(f"the stream ended with {problem}")
        if str(problem["type"]).endswith("stream-gone"):
            self.gone = True
        else:
            self.misled = f"the stream ended with {problem['status']} {problem['title']} ({problem['requestId']})"

    def _take_chunk(self, data: dict[str, Any]) -> None:
        index = int(data["index"])
        if index <= self.last:
            raise DoubledError(f"index {index} came after {self.last}")
        if data.get("reset"):
            self.text = ""
        elif index != self.last + 1:
            raise LostError(f"index {index} came after {self.last}: a gap")
        else:
            self.text += data["chunk"]
            self.chunks[index] = data["chunk"]
        self.last = index


async def stream(run: Run, world: World) -> None:
    """Start a stream, read it with interruptions, and then once more from its beginning."""
    count = world.rng.randint(5, 60)
    params = {"count": count, "pause": world.rng.choice((0.01, 0.05, 0.1))}
    body = {"query": run.key, "agent": "speaker", "params": params}
    received = Received()
    await _begin(run, world, body, received)
    await _read_on(run, world, received)
    await world.api.ended(run)
    check(run.response, "".join(pieces_of(run.key, count)), "the result")
    if not received.gone:
        check(received.text, run.response, "what was read")
    again = Received()
    await _read_on(run, world, again)
    run.misled = received.misled or again.misled
    if (received.gone or again.gone) and not world.streams_may_be_gone:
        raise LostError("a part of the stream is gone")
    if not again.gone:
        check(again.text, run.response, "what was read again")
    different = [index for index, chunk in again.chunks.items() if received.chunks.get(index, chunk) != chunk]
    if different:
        raise DoubledError(f"indexes {different[:5]} stand for two different chunks")
    run.copies += int(received.gone or again.gone)


async def _begin(run: Run, world: World, body: dict[str, Any], received: Received) -> None:
    """Send the start until it is acknowledged, and read what that connection brings."""
    while not run.acknowledged:
        try:
            async with world.api.any().stream("POST", "/stream", json=body, headers={KEY: run.key}) as answer:
                if answer.is_success:
                    run.know(answer.headers["X-Stream-Id"])
                    await _read(answer, world, received)
                    return
                await _odd(world, "POST /stream", answer)
                check_refusal(run, answer)
        except httpx.TransportError as error:
            world.api.ledger.report_odd("POST /stream", type(error).__name__)
        await asyncio.sleep(world.rng.uniform(0.1, 0.6))


async def _read_on(run: Run, world: World, received: Received) -> None:
    """Resume after the last index, at any API, until the end."""
    while not (received.ended or received.gone):
        headers = {"Last-Event-ID": str(received.last)} if received.last else {}
        try:
            async with world.api.any().stream("GET", f"/stream/{run.id}", headers=headers) as answer:
                if answer.is_success:
                    await _read(answer, world, received)
                    continue
                await _odd(world, "GET /stream", answer)
                if answer.status_code == 410:
                    received.gone = True
                elif 400 <= answer.status_code < 500:
                    problem = problem_in(answer)
                    raise RefusedError(f"after {received.last}: {problem.get('detail') or answer.text[:200]}")
        except httpx.TransportError as error:
            world.api.ledger.report_odd("GET /stream", type(error).__name__)
        await asyncio.sleep(world.rng.uniform(0.05, 0.5))


async def _read(answer: httpx.Response, world: World, received: Received) -> None:
    """Read until the end, or the connection's, or as long as the reader likes."""
    left = world.rng.randint(1, 20) if world.rng.random() < _CUT else None
    try:
        async with asyncio.timeout(_SILENT_SECONDS) as timeout_seconds:
            async for event in events(answer):
                timeout_seconds.reschedule(asyncio.get_running_loop().time() + _SILENT_SECONDS)
                received.take(event)
                left = None if left is None else left - 1
                if left == 0 or received.ended or received.gone or event.name in ("error", "reconnect"):
                    return
    except TimeoutError:
        world.api.ledger.report_odd("GET /stream", f"no event for {_SILENT_SECONDS:.0f} s")


async def _odd(world: World, where: str, answer: httpx.Response) -> None:
    await answer.aread()
    world.api.ledger.report_odd(where, outcome_of(answer))
