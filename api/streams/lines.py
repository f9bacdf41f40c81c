"""A run's stream as lines for its readers, whatever the wire: chunks, resets, progress, and one end."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.streams.reader import StreamGoneError, read_entries_after, read_logged_entries_after
from sevenfold.adapters.temporal.run_outcomes import await_outcome
from sevenfold.api.dependencies import API_PREFIX, Gateway
from sevenfold.api.http.problem_handlers import to_problem
from sevenfold.api.http.problems import ProblemError, ProblemType, invalid_field, run_failure
from sevenfold.api.http.request_id import request_id
from sevenfold.api.http.sse import HEARTBEAT_SECONDS
from sevenfold.api.runs.start import StartSpec, start_run
from sevenfold.api.runs.views import find_run
from sevenfold.contracts.answers import processing_time
from sevenfold.contracts.identity import build_workflow_id
from sevenfold.contracts.requests import StreamRequest
from sevenfold.contracts.runs import ID_PREFIXES, Pattern, RunOutcome, RunResult
from sevenfold.contracts.streams import FOLLOW_SIGNAL, MAX_UNCONFIRMED, RESET_STEP, EntryKind, StreamEntry

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StreamLine:
    """One line for a reader: JSON in UTF-8, the name of its event (None: a chunk or a reset), its index if it has
    one, and a problem's HTTP status.
    """

    data: bytes
    event: str | None = None
    index: int | None = None
    status: int | None = None

    @property
    def as_object(self) -> bytes:
        """The line where events have no names: a problem then stands under `error`; the others tell by their keys."""
        return b'{"error":%b}' % self.data if self.event == "error" else self.data


# For what passes: this process stops, or something behind it is away. The reader shall come again.
_RECONNECT = StreamLine(b'{"reconnect":true}', "reconnect")


@dataclass(frozen=True)
class StreamSubscription:
    """A stream that can be read after an index."""

    gateway: Gateway
    tenant: str
    run_id: str
    after_index: int = 0
    outcome: RunOutcome | None = None
    replayed: bool = False

    @classmethod
    async def start(cls, gateway: Gateway, tenant: str, body: StreamRequest, key: str | None) -> "StreamSubscription":
        """The stream that is started now, or that was before with the same key."""
        spec = StartSpec(
            Pattern.STREAMING, tenant, body, task="query", key=key, query=body.query, context=body.context
        )
        started = await start_run(gateway, spec)
        if started.replayed:
            return replace(await subscribe(gateway, tenant, started.run_id), replayed=True)
        return cls(gateway, tenant, started.run_id)

    @property
    def path(self) -> str:
        """Where to go on reading."""
        is_stream = self.run_id.startswith(ID_PREFIXES[Pattern.STREAMING] + "_")
        return f"{API_PREFIX}/stream/{self.run_id}" if is_stream else f"{API_PREFIX}/runs/{self.run_id}/stream"

    def cancel_in_background(self) -> None:
        """Cancels the run, for somebody who cannot wait for it."""
        handle = self.gateway.client.get_workflow_handle(build_workflow_id(self.tenant, self.run_id))
        self.gateway.run_in_background(handle.cancel())

    async def lines(self) -> AsyncIterator[list[StreamLine]]:
        """What comes, as it comes, the end last; an empty list when there was nothing for a while.

        Nothing is raised: what goes wrong is the end, as a problem.
        """
        index = self.after_index
        try:
            async with self._open() as (pages, get_outcome):
                async for entries in pages:
                    index = entries[-1].index if entries else index
                    yield [_to_line(entry) for entry in entries]
                if self.gateway.streams.stopping.is_set():
                    yield [_RECONNECT]
                    return
                outcome = get_outcome()
            unlogged = _unlogged_lines(outcome, self.after_index, index)
            last = self._final_line(outcome)
            # The end has an index too: who comes back with it has everything.
            yield [*unlogged, replace(last, index=max([index, *(line.index or 0 for line in unlogged)]))]
        except StreamGoneError as gone:
            yield [problem_line(_gone_problem(gone.index))]
        except Exception as error:
            problem = to_problem(error)
            yield [_RECONNECT if problem.retry_after is not None else problem_line(problem)]

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[tuple[AsyncIterator[list[StreamEntry]], Callable[[], RunOutcome]]]:
        """What there is to read, and how it ended, once that is read."""
        hubs, workflow_id, outcome = self.gateway.streams, build_workflow_id(self.tenant, self.run_id), self.outcome
        if outcome is not None:
            yield (
                read_logged_entries_after(hubs.log, workflow_id, self.after_index, outcome.last_index or None),
                lambda: outcome,
            )
            return
        is_awaited = self.run_id.startswith(ID_PREFIXES[Pattern.STREAMING] + "_")
        request_publishing = None if is_awaited else partial(_signal_follow, self.gateway, workflow_id)
        await_outcome = partial(_await_outcome, self.gateway, self.tenant, self.run_id)
        async with hubs.subscribe(workflow_id, await_outcome, request_publishing) as hub:
            yield read_entries_after(hubs, hub, self.after_index, heartbeat_seconds=HEARTBEAT_SECONDS), hub.outcome

    def _final_line(self, outcome: RunOutcome) -> StreamLine:
        if outcome.error is not None:
            return problem_line(run_failure(self.run_id, outcome.error))
        body: dict[str, Any] = {"chunk": "", "done": True, "status": outcome.status}
        if outcome.result is not None:
            reply = outcome.result.reply
            body["confidence"] = reply.confidence
            body["processingTime"] = processing_time(outcome.result.duration_seconds)
            if reply.usage is not None:
                body["usage"] = reply.usage.model_dump(by_alias=True)
        return StreamLine(_json(body), "done")


async def subscribe(
    gateway: Gateway, tenant: str, run_id: str, after: int = 0, pointer: str = "query:after"
) -> StreamSubscription:
    """A run's stream after an index. Raises the problem of a run that is not there, and of an index (it came at
    `pointer`) that there has not been yet or whose followers are not kept any more.
    """
    description = await find_run(gateway, tenant, run_id)
    outcome = await _await_outcome(gateway, tenant, run_id) if description.close_time else None
    if after or outcome:
        await _check_index(gateway, build_workflow_id(tenant, run_id), after, outcome, pointer)
    return StreamSubscription(gateway, tenant, run_id, after, outcome)


async def _check_index(
    gateway: Gateway, workflow_id: str, after: int, outcome: RunOutcome | None, pointer: str
) -> None:
    last = max(await gateway.streams.log.last_index(workflow_id), gateway.streams.last_index(workflow_id))
    if outcome is None or outcome.last_index is None:
        highest = last + MAX_UNCONFIRMED  # a crash may have taken what the reader saw
    elif outcome.last_index:
        highest = outcome.last_index
        if last < highest:
            raise _gone_problem(last)
    else:
        highest = RESET_STEP + 1  # see _unlogged_lines
    if after > highest:
        raise invalid_field(pointer, f"there is no {after}; the last index so far is {last}")


async def _signal_follow(gateway: Gateway, workflow_id: str) -> None:
    """Asks a run, which publishes nothing while nobody follows it, for what its agent says."""
    try:
        await gateway.client.get_workflow_handle(workflow_id).signal(FOLLOW_SIGNAL)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:  # it has ended
            log.warning("a run could not be asked for its stream", workflow=workflow_id, error=error.message)


async def _await_outcome(gateway: Gateway, tenant: str, run_id: str) -> RunOutcome:
    return await await_outcome(
        gateway.client.get_workflow_handle(build_workflow_id(tenant, run_id), result_type=RunResult)
    )


def _unlogged_lines(outcome: RunOutcome, after: int, index: int) -> list[StreamLine]:
    """The whole response of a run of which the log keeps nothing: it was over at once, and nobody followed it. A
    reader who knows a part of it from its process's memory is told to begin anew.
    """
    if outcome.result is None or outcome.last_index or not outcome.result.reply.response:
        return []
    response = outcome.result.reply.response
    if index > after:  # said to this reader while it was said
        lost = (
            outcome.result.attempts > 1 and index < RESET_STEP
        )  # by an attempt that is void, and left nothing in the log
        return [_to_line(entry) for entry in _replayed_entries(outcome.result.attempts, response)] if lost else []
    if after == 0:
        return [_to_line(StreamEntry.chunk(1, response))]
    return [_to_line(entry) for entry in _replayed_entries(outcome.result.attempts, response) if entry.index > after]


def _replayed_entries(attempts: int, response: str) -> list[StreamEntry]:
    return [StreamEntry.reset(RESET_STEP, attempts), StreamEntry.chunk(RESET_STEP + 1, response)]


def _to_line(entry: StreamEntry) -> StreamLine:
    if entry.kind is EntryKind.PROGRESS:
        return StreamLine(entry.data, "progress")
    return StreamLine(entry.data, index=entry.index)


def _gone_problem(index: int) -> ProblemError:
    return ProblemError(
        ProblemType.STREAM_GONE,
        f"What came after index {index} is not kept any more. The run itself has the result, at {API_PREFIX}/runs.",
    )


def problem_line(problem: ProblemError) -> StreamLine:
    """The end of a stream that went wrong."""
    body = problem.body(request_id())
    data = body.model_dump_json(by_alias=True, exclude_none=True).encode()
    return StreamLine(data, "error", status=body.status)


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
