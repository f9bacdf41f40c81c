"""Pattern 6, streaming: `POST /stream`, `GET /stream/{id}`, and the stream of any run at `GET /runs/{id}/stream`."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event

from sevenfold.adapters.metrics.streams import BYTES
from sevenfold.api.dependencies import API_PREFIX, PrincipalDep, TenantDep
from sevenfold.api.http.content_negotiation import negotiate
from sevenfold.api.http.idempotency import REPLAYED, IdempotencyKeyDep
from sevenfold.api.http.open_responses import is_ended_by_credential
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.problems import invalid_field, not_found
from sevenfold.api.http.sse import RETRY_MILLISECONDS, STREAM_HEADERS
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.runs.dependencies import RunReaderDep
from sevenfold.api.runs.router import RunId, request_cancellation
from sevenfold.api.runs.views import Run
from sevenfold.api.streams.lines import StreamLine, StreamSubscription
from sevenfold.api.streams.options import MAX_INDEX, OnDisconnect
from sevenfold.api.streams.permissions import check_cancel
from sevenfold.api.streams.resume import StreamOpenerDep
from sevenfold.contracts.runs.requests import StreamRequest
from sevenfold.contracts.runs.run import ID_PREFIXES, Pattern

router = APIRouter(prefix=API_PREFIX, tags=["streaming"], route_class=StrictJsonRoute)

SSE, NDJSON = "text/event-stream", "application/x-ndjson"


# Suffix of the last event's id. A browser reconnects with that id and gets 204, which ends its reconnecting.
_END = "-end"
_EVENT_ID = re.compile(rf"([0-9]{{1,16}})({_END})?")

# One event; the response is a sequence of events.
_EVENT_SCHEMA = {
    "type": "object",
    "properties": {
        "data": {"type": "string", "contentMediaType": "application/json"},
        "event": {"enum": ["message", "progress", "done", "error", "reconnect"]},
        "id": {"type": "string", "pattern": "^[0-9]+(-end)?$"},
        "retry": {"type": "integer"},
    },
    "examples": [{"data": '{"chunk":"Based on the analysis","index":1}', "id": "1"}],
}

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The stream: chunks `{chunk, index}`; a reset `{reset, attempt, index}`, which voids all "
        "chunks before it; the events `progress`, `done`, `error` (a problem) and `reconnect` (this process stops: "
        "resume at `Location` with `Last-Event-ID`).",
        "content": {
            SSE: {"schema": _EVENT_SCHEMA},
            NDJSON: {"schema": {"type": "string"}},
        },
    },
    **PROBLEMS,
}


@dataclass(frozen=True)
class _StreamOptions:
    """The media type, and whether a disconnect cancels the run."""

    media_type: str
    cancels_run: bool


async def _stream_options(
    principal: PrincipalDep,
    accept: Annotated[str | None, Header(include_in_schema=False)] = None,
    on_disconnect: OnDisconnect = "continue",
) -> _StreamOptions:
    if on_disconnect == "cancel":
        check_cancel(principal)
    return _StreamOptions(negotiate(accept, (SSE, NDJSON)), on_disconnect == "cancel")


StreamOptionsDep = Annotated[_StreamOptions, Depends(_stream_options)]


@dataclass(frozen=True)
class _ResumePoint:
    """Where a reader resumes: after `index`, which came at `pointer`. `is_end`: it has the last event already."""

    index: int
    pointer: str
    is_end: bool = False


async def _resume_point(
    after: Annotated[
        int | None, Query(ge=0, le=MAX_INDEX, description="The last index you have; 0 for the whole stream.")
    ] = None,
    last_event_id: Annotated[
        str | None, Header(description="The same, as browsers send it; it takes precedence over `after`.")
    ] = None,
) -> _ResumePoint:
    if last_event_id is None:
        return _ResumePoint(after or 0, "query:after")
    found = _EVENT_ID.fullmatch(last_event_id)
    if found is None or int(found[1]) > MAX_INDEX:
        raise invalid_field("header:last-event-id", "must be the `id` of an event of this stream")
    return _ResumePoint(int(found[1]), "header:last-event-id", is_end=bool(found[2]))


ResumePointDep = Annotated[_ResumePoint, Depends(_resume_point)]
StreamId = Annotated[str, Path(description="The `X-Stream-Id` of the start.")]


@router.post(
    "/stream",
    operation_id="createStream",
    summary="Send a query and stream the answer",
    responses=_RESPONSES,
)
async def start_stream(
    body: StreamRequest,
    opener: StreamOpenerDep,
    principal: PrincipalDep,
    key: IdempotencyKeyDep,
    options: StreamOptionsDep,
) -> Response:
    """Streams server-sent events, or JSON lines with `Accept: application/x-ndjson`. A reader that is disconnected
    resumes at the `Location` of this response with `Last-Event-ID`; the run continues meanwhile, unless
    `onDisconnect=cancel`.
    """
    return _streaming_response(await opener.start(principal, body, key), options)


@router.get("/stream/{stream_id}", operation_id="resumeStream", summary="Resume a stream", responses=_RESPONSES)
async def resume_stream(
    stream_id: StreamId,
    opener: StreamOpenerDep,
    tenant: TenantDep,
    resume_point: ResumePointDep,
    options: StreamOptionsDep,
) -> Response:
    """Streams what follows the index that you have. Any process serves it, while the run is open and afterwards."""
    return await stream_run(_check_stream_id(stream_id), opener, tenant, resume_point, options)


@router.get("/runs/{run_id}/stream", operation_id="streamRun", summary="Stream a run", responses=_RESPONSES)
async def stream_run(
    run_id: RunId,
    opener: StreamOpenerDep,
    tenant: TenantDep,
    resume_point: ResumePointDep,
    options: StreamOptionsDep,
) -> Response:
    """Streams the output of the run's agent, whichever pattern started the run."""
    if resume_point.is_end and await opener.has_ended_at(tenant, run_id, resume_point.index):
        return Response(status_code=204)
    subscription = await opener.subscribe(tenant, run_id, resume_point.index, resume_point.pointer)
    return _streaming_response(subscription, options)


@router.post(
    "/stream/{stream_id}/cancel",
    operation_id="cancelStream",
    summary="Cancel a stream",
    status_code=202,
    responses={200: {"model": Run, "description": "The run had ended already."}, **PROBLEMS},
)
async def cancel_stream(
    stream_id: StreamId, reader: RunReaderDep, principal: PrincipalDep, response: Response
) -> Run:
    """Cancels the run and its agent call. Every reader gets the end with the status `cancelled`."""
    run = await request_cancellation(reader, principal, _check_stream_id(stream_id))
    if run.closed_at is not None:
        response.status_code = 200
    return run


def _check_stream_id(stream_id: str) -> str:
    if not stream_id.startswith(ID_PREFIXES[Pattern.STREAMING] + "_"):
        raise not_found("This stream")
    return stream_id


def _streaming_response(subscription: StreamSubscription, options: _StreamOptions) -> Response:
    pieces = (_as_sse if options.media_type == SSE else _as_ndjson)(subscription)
    replayed = REPLAYED if subscription.replayed else {}
    return StreamingResponse(
        _cancel_on_disconnect(subscription, pieces, cancels_run=options.cancels_run),
        media_type=options.media_type,
        headers={"Location": subscription.path, "X-Stream-Id": subscription.run_id, **STREAM_HEADERS, **replayed},
    )


async def _cancel_on_disconnect(
    subscription: StreamSubscription, pieces: AsyncIterator[bytes], *, cancels_run: bool
) -> AsyncIterator[bytes]:
    """Yields the pieces. If the reader disconnects before the end and `cancels_run` is set, cancels the run."""
    try:
        async for piece in pieces:
            BYTES.inc(len(piece))
            yield piece
    except (asyncio.CancelledError, GeneratorExit):
        if cancels_run and not is_ended_by_credential():
            subscription.cancel_in_background()
        raise


async def _as_sse(subscription: StreamSubscription) -> AsyncIterator[bytes]:
    yield format_sse_event(retry=RETRY_MILLISECONDS)
    async for lines in subscription.lines():
        yield b"".join(map(_format_event, lines)) or b": heartbeat\n\n"


def _format_event(line: StreamLine) -> bytes:
    # JSON has no raw line breaks, so one `data` field is enough
    if line.event is None and line.index is not None:  # nearly all of them
        return b"data: %b\nid: %d\n\n" % (line.data, line.index)
    end = _END if line.event in ("done", "error") else ""
    identity = "" if line.index is None else f"id: {line.index}{end}\n"
    event = f"event: {line.event}\n" if line.event else ""
    return b"%bdata: %b\n%b\n" % (event.encode(), line.data, identity.encode())


async def _as_ndjson(subscription: StreamSubscription) -> AsyncIterator[bytes]:
    async for lines in subscription.lines():
        yield b"".join(line.as_object + b"\n" for line in lines) or b'{"heartbeat":true}\n'
