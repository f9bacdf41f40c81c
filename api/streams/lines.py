"""A run's stream as lines for its readers, whatever the transport: chunks, resets, progress, and one end."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.streams.hub import StreamHubs
from sevenfold.adapters.streams.reader import StreamGoneError, read_entries_after, read_logged_entries_after
from sevenfold.adapters.temporal.run_outcomes import await_outcome
from sevenfold.api.dependencies import API_PREFIX
from sevenfold.api.http.problem_handlers import to_problem
from sevenfold.api.http.problems import ProblemError, ProblemType, run_failure
from sevenfold.api.http.request_id import request_id
from sevenfold.api.http.sse import HEARTBEAT_SECONDS
from sevenfold.api.streams.detached import DetachedTasks
from sevenfold.contracts.identity import build_workflow_id
from sevenfold.contracts.runs.outcomes import processing_time
from sevenfold.contracts.runs.run import ID_PREFIXES, Pattern, RunOutcome, RunResult
from sevenfold.contracts.runs.streams import FOLLOW_SIGNAL, RESET_STEP, EntryKind, StreamEntry

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StreamLine:
    """One line of a stream: its JSON in UTF-8, the name of its event (None for a chunk or a reset), its index if it
    has one, and the HTTP status of a problem. `is_whole`: it is the whole text of a run that streamed nothing.
    """

    data: bytes
    event: str | None = None
    index: int | None = None
    status: int | None = None
    is_whole: bool = False

    @property
    def as_object(self) -> bytes:
        """The line for transports without event names: a problem is nested under `error`."""
        return b'{"error":%b}' % self.data if self.event == "error" else self.data


# For transient ends: this process stops, or a peer is unavailable. The reader reconnects.
_RECONNECT = StreamLine(b'{"reconnect":true}', "reconnect")


@dataclass(frozen=True)
class StreamSubscription:
    """A run's stream for one reader, after an index. `outcome` is set if the run has ended. `replayed`: an earlier
    request with the same key started the run.
    """

    client: Client
    hubs: StreamHubs
    detached: DetachedTasks
    tenant: str
    run_id: str
    after_index: int = 0
    outcome: RunOutcome | None = None
    replayed: bool = False

    @property
    def path(self) -> str:
        """The path at which a reader resumes."""
        is_stream = self.run_id.startswith(ID_PREFIXES[Pattern.STREAMING] + "_")
        return f"{API_PREFIX}/stream/{self.run_id}" if is_stream else f"{API_PREFIX}/runs/{self.run_id}/stream"

    def cancel_in_background(self) -> None:
        """Cancels the run without waiting: the reader may be gone already."""
        handle = self.client.get_workflow_handle(build_workflow_id(self.tenant, self.run_id))
        self.detached.start(handle.cancel())

    async def lines(self) -> AsyncGenerator[list[StreamLine]]:
        """Yields lines as they come, the end last; an empty list as a heartbeat.

        Raises nothing: a failure becomes the end, as a problem.
        """
        index = self.after_index
        try:
            async with self._open() as (pages, get_outcome):
                async for entries in pages:
                    index = entries[-1].index if entries else index
                    yield [_to_line(entry) for entry in entries]
                if self.hubs.stopping.is_set():
                    yield [_RECONNECT]
                    return
                outcome = get_outcome()
            unlogged = _unlogged_lines(outcome, self.after_index, index)
            last = self._final_line(outcome)
            # The end has an index too: a reader that resumes after it has everything.
            yield [*unlogged, replace(last, index=max([index, *(line.index or 0 for line in unlogged)]))]
        except StreamGoneError as gone:
            yield [problem_line(gone_problem(gone.index))]
        except Exception as error:
            problem = to_problem(error)
            yield [_RECONNECT if problem.retry_after is not None else problem_line(problem)]

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[tuple[AsyncIterator[list[StreamEntry]], Callable[[], RunOutcome]]]:
        """Opens the pages of entries, and a function that returns the outcome once they are read."""
        hubs, workflow_id, outcome = self.hubs, build_workflow_id(self.tenant, self.run_id), self.outcome
        if outcome is not None:
            yield (
                read_logged_entries_after(hubs.log, workflow_id, self.after_index, outcome.last_index or None),
                lambda: outcome,
            )
            return
        is_awaited = self.run_id.startswith(ID_PREFIXES[Pattern.STREAMING] + "_")
        request_publishing = None if is_awaited else partial(_signal_follow, self.client, workflow_id)
        fetch_outcome = partial(fetch_stream_outcome, self.client, self.tenant, self.run_id)
        async with hubs.subscribe(workflow_id, fetch_outcome, request_publishing) as hub:
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


async def _signal_follow(client: Client, workflow_id: str) -> None:
    """Has a run publish its agent's output. A run of another pattern publishes nothing until it has a reader."""
    try:
        await client.get_workflow_handle(workflow_id).signal(FOLLOW_SIGNAL)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:  # it has ended
            log.warning("signal to publish the stream failed", workflow=workflow_id, error=error.message)


async def fetch_stream_outcome(client: Client, tenant: str, run_id: str) -> RunOutcome:
    """Waits until the run has ended; returns its outcome."""
    return await await_outcome(client.get_workflow_handle(build_workflow_id(tenant, run_id), result_type=RunResult))


def _unlogged_lines(outcome: RunOutcome, after: int, index: int) -> list[StreamLine]:
    """Returns the whole response of a run whose log is empty, because it ended at once and had no reader. A reader
    that knows a part of it from this process's memory gets a reset first.
    """
    if outcome.result is None or outcome.last_index or not outcome.result.reply.response:
        return []
    response = outcome.result.reply.response
    if index > after:  # this reader got entries live
        # of a failed attempt, which left nothing in the log
        lost = outcome.result.attempts > 1 and index < RESET_STEP
        return [_to_line(entry) for entry in _replayed_entries(outcome.result.attempts, response)] if lost else []
    if after == 0:
        return [replace(_to_line(StreamEntry.chunk(1, response)), is_whole=True)]
    return [_to_line(entry) for entry in _replayed_entries(outcome.result.attempts, response) if entry.index > after]


def _replayed_entries(attempts: int, response: str) -> list[StreamEntry]:
    return [StreamEntry.reset(RESET_STEP, attempts), StreamEntry.chunk(RESET_STEP + 1, response)]


def _to_line(entry: StreamEntry) -> StreamLine:
    if entry.kind is EntryKind.PROGRESS:
        return StreamLine(entry.data, "progress")
    if entry.kind is EntryKind.INPUT_REQUIRED:
        return StreamLine(entry.data, "input_required")
    return StreamLine(entry.data, index=entry.index)


def gone_problem(index: int) -> ProblemError:
    """Returns the 410 of a stream that keeps nothing after an index."""
    return ProblemError(
        ProblemType.STREAM_GONE,
        f"The stream no longer keeps what follows index {index}. Read the result at {API_PREFIX}/runs/{{id}}.",
    )


def problem_line(problem: ProblemError) -> StreamLine:
    """Returns the last line of a stream that failed."""
    body = problem.body(request_id()).model_copy(update={"retry_after": problem.retry_after_seconds})
    data = body.model_dump_json(by_alias=True, exclude_none=True).encode()
    return StreamLine(data, "error", status=body.status)


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
