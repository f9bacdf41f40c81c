"""A run's stream as lines for its readers, whatever the wire: chunks, resets, progress, and one end."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog
from temporalio.service import RPCError, RPCStatusCode

from adapters.run_outcomes import end_of
from adapters.streams.reader import StreamGoneError, entries_after, kept_entries_after
from api.gateway import API_PREFIX, Gateway
from api.long_answers import BEAT_SECONDS
from api.problem_handlers import problem_of
from api.problems import Kind, ProblemError, failed_run, invalid
from api.request_id import request_id
from api.runs_view import described
from api.starting import Start, start_run
from contracts.answers import processing_time
from contracts.identity import workflow_id
from contracts.requests import StreamRequest
from contracts.runs import ID_PREFIXES, Pattern, RunEnd, RunResult
from contracts.streams import FOLLOW_SIGNAL, MOST_UNCONFIRMED, RESET_STEP, EntryKind, StreamEntry

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Line:
    """One thing a reader gets: JSON, the name of its event (None: a chunk or a reset), its index if it has one, and
    a problem's HTTP status.
    """

    text: str
    event: str | None = None
    index: int | None = None
    status: int | None = None

    @property
    def as_object(self) -> str:
        """The line where events have no names: a problem then stands under `error`; the others tell by their keys."""
        return f'{{"error":{self.text}}}' if self.event == "error" else self.text


# For what passes: this process stops, or something behind it is away. The reader shall come again.
_RECONNECT = Line('{"reconnect":true}', "reconnect")


@dataclass(frozen=True)
class Following:
    """A stream that can be read after an index."""

    gateway: Gateway
    tenant: str
    run_id: str
    after: int = 0
    end: RunEnd | None = None
    replayed: bool = False

    @classmethod
    async def of(cls, gateway: Gateway, tenant: str, body: StreamRequest, key: str | None) -> "Following":
        """The stream that is started now, or that was before with the same key."""
        start = Start(Pattern.STREAMING, tenant, body, task="query", key=key, query=body.query, context=body.context)
        started = await start_run(gateway, start)
        if started.replayed:
            return replace(await follow(gateway, tenant, started.run_id), replayed=True)
        return cls(gateway, tenant, started.run_id)

    @property
    def path(self) -> str:
        """Where to go on reading."""
        is_stream = self.run_id.startswith(ID_PREFIXES[Pattern.STREAMING] + "_")
        return f"{API_PREFIX}/stream/{self.run_id}" if is_stream else f"{API_PREFIX}/runs/{self.run_id}/stream"

    def cancel_soon(self) -> None:
        """Cancels the run, for somebody who cannot wait for it."""
        handle = self.gateway.client.get_workflow_handle(workflow_id(self.tenant, self.run_id))
        self.gateway.in_background(handle.cancel())

    async def lines(self) -> AsyncIterator[list[Line]]:
        """What comes, as it comes, the end last; an empty list when there was nothing for a while.

        Nothing is raised: what goes wrong is the end, as a problem.
        """
        index = self.after
        try:
            async with self._opened() as (pages, end_of):
                async for entries in pages:
                    index = entries[-1].index if entries else index
                    yield [_line(entry) for entry in entries]
                if self.gateway.streams.stopping.is_set():
                    yield [_RECONNECT]
                    return
                end = end_of()
            unkept = _unkept(end, self.after, index)
            last = self._last(end)
            # The end has an index too: who comes back with it has everything.
            yield [*unkept, replace(last, index=max([index, *(line.index or 0 for line in unkept)]))]
        except StreamGoneError as gone:
            yield [problem_line(_gone(gone.index))]
        except Exception as error:
            problem = problem_of(error)
            yield [_RECONNECT if problem.retry_after is not None else problem_line(problem)]

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[tuple[AsyncIterator[list[StreamEntry]], Callable[[], RunEnd]]]:
        """What there is to read, and how it ended, once that is read."""
        streams, workflow, end = self.gateway.streams, workflow_id(self.tenant, self.run_id), self.end
        if end is not None:
            yield kept_entries_after(streams.log, workflow, self.after, end.last_index or None), lambda: end
            return
        is_awaited = self.run_id.startswith(ID_PREFIXES[Pattern.STREAMING] + "_")
        follow = None if is_awaited else partial(_follow, self.gateway, workflow)
        ended = partial(_ended, self.gateway, self.tenant, self.run_id)
        async with streams.joined(workflow, ended, follow) as stream:
            yield entries_after(streams, stream, self.after, beat=BEAT_SECONDS), stream.end

    def _last(self, end: RunEnd) -> Line:
        if end.error is not None:
            return problem_line(failed_run(self.run_id, end.error))
        body: dict[str, Any] = {"chunk": "", "done": True, "status": end.status}
        if end.result is not None:
            reply = end.result.reply
            body["confidence"] = reply.confidence
            body["processingTime"] = processing_time(end.result.seconds)
            if reply.usage is not None:
                body["usage"] = reply.usage.model_dump(by_alias=True)
        return Line(_json(body), "done")


async def follow(
    gateway: Gateway, tenant: str, run_id: str, after: int = 0, pointer: str = "query:after"
) -> Following:
    """A run's stream after an index. Raises the problem of a run that is not there, and of an index (it came at
    `pointer`) that there has not been yet or whose followers are not kept any more.
    """
    description = await described(gateway, tenant, run_id)
    end = await _ended(gateway, tenant, run_id) if description.close_time else None
    if after or end:
        await _check(gateway, workflow_id(tenant, run_id), after, end, pointer)
    return Following(gateway, tenant, run_id, after, end)


async def _check(gateway: Gateway, workflow: str, after: int, end: RunEnd | None, pointer: str) -> None:
    last = max(await gateway.streams.log.last_index(workflow), gateway.streams.last_index(workflow))
    if end is None or end.last_index is None:
        highest = last + MOST_UNCONFIRMED  # a crash may have taken what the reader saw
    elif end.last_index:
        highest = end.last_index
        if last < highest:
            raise _gone(last)
    else:
        highest = RESET_STEP + 1  # see _unkept
    if after > highest:
        raise invalid(pointer, f"there is no {after}; the last index so far is {last}")


async def _follow(gateway: Gateway, workflow: str) -> None:
    """Asks a run, which publishes nothing while nobody follows it, for what its agent says."""
    try:
        await gateway.client.get_workflow_handle(workflow).signal(FOLLOW_SIGNAL)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:  # it has ended
            log.warning("a run could not be asked for its stream", workflow=workflow, error=error.message)


async def _ended(gateway: Gateway, tenant: str, run_id: str) -> RunEnd:
    return await end_of(gateway.client.get_workflow_handle(workflow_id(tenant, run_id), result_type=RunResult))


def _unkept(end: RunEnd, after: int, index: int) -> list[Line]:
    """The whole response of a run of which the log keeps nothing: it was over at once, and nobody followed it. A
    reader who knows a part of it from its process's memory is told to begin anew.
    """
    if end.result is None or end.last_index or not end.result.reply.response:
        return []
    whole = end.result.reply.response
    if index > after:  # said to this reader while it was said
        lost = (
            end.result.attempts > 1 and index < RESET_STEP
        )  # by an attempt that is void, and left nothing in the log
        return [_line(entry) for entry in _anew(end.result.attempts, whole)] if lost else []
    if after == 0:
        return [_line(StreamEntry.chunk(1, whole))]
    return [_line(entry) for entry in _anew(end.result.attempts, whole) if entry.index > after]


def _anew(attempts: int, whole: str) -> list[StreamEntry]:
    return [StreamEntry.reset(RESET_STEP, attempts), StreamEntry.chunk(RESET_STEP + 1, whole)]


def _line(entry: StreamEntry) -> Line:
    if entry.kind is EntryKind.PROGRESS:
        return Line(entry.text, "progress")
    return Line(entry.text, index=entry.index)


def _gone(index: int) -> ProblemError:
    return ProblemError(
        Kind.STREAM_GONE,
        f"What came after index {index} is not kept any more. The run itself has the result, at {API_PREFIX}/runs.",
    )


def problem_line(problem: ProblemError) -> Line:
    """The end of a stream that went wrong."""
    body = problem.body(request_id())
    return Line(body.model_dump_json(by_alias=True, exclude_none=True), "error", status=body.status)


def _json(body: dict[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))
