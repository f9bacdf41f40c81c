"""Pattern 6, streaming: `POST /stream`, `GET /stream/{id}`, and any other run's stream at `GET /runs/{id}/stream`."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event

from sevenfold.api.dependencies import API_PREFIX, GatewayDep, TenantDep
from sevenfold.api.http.content_negotiation import negotiate
from sevenfold.api.http.idempotency import REPLAYED, IdempotencyKeyDep
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.problems import invalid_field, not_found
from sevenfold.api.http.sse import RETRY_MILLISECONDS, STREAM_HEADERS
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.runs.router import RunId, cancel_run
from sevenfold.api.runs.views import Run, find_run
from sevenfold.api.streams.lines import StreamLine, StreamSubscription, subscribe
from sevenfold.api.streams.options import MAX_INDEX, OnDisconnect
from sevenfold.contracts.requests import StreamRequest
from sevenfold.contracts.runs import ID_PREFIXES, Pattern

router = APIRouter(prefix=API_PREFIX, tags=["streaming"], route_class=StrictJsonRoute)

SSE, NDJSON = "text/event-stream", "application/x-ndjson"


# The id of the last event has this behind its index: a browser that comes back with it is told by a 204 to stay away.
_END = "-end"
_EVENT_ID = re.compile(rf"([0-9]{{1,16}})({_END})?")
_AFTER_END = "header:last-event-id:end"

# One event; the answer is a sequence of them.
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
        "description": "The stream: chunks `{chunk, index}`; a reset `{reset, attempt, index}`, after which all that "
        "was said before is void; the events `progress`, `done`, `error` (a problem) and `reconnect` (this process "
        "stops: go on at `Location` with `Last-Event-ID`).",
        "content": {
            SSE: {"schema": _EVENT_SCHEMA},
            NDJSON: {"schema": {"type": "string"}},
        },
    },
    **PROBLEMS,
}


@dataclass(frozen=True)
class _StreamOptions:
    """How a reader wants its stream: the media type, and whether the run ends with the connection."""

    media_type: str
    cancels_run: bool


async def _stream_options(
    accept: Annotated[str | None, Header(include_in_schema=False)] = None, on_disconnect: OnDisconnect = "continue"
) -> _StreamOptions:
    return _StreamOptions(negotiate(accept, (SSE, NDJSON)), on_disconnect == "cancel")


StreamOptionsDep = Annotated[_StreamOptions, Depends(_stream_options)]


async def _resume_position(
    after: Annotated[
        int | None, Query(ge=0, le=MAX_INDEX, description="The last index you have; 0 for everything.")
    ] = None,
    last_event_id: Annotated[
        str | None, Header(description="The same, as browsers send it; it goes before `after`.")
    ] = None,
) -> tuple[int, str]:
    if last_event_id is None:
        return after or 0, "query:after"
    found = _EVENT_ID.fullmatch(last_event_id)
    if found is None or int(found[1]) > MAX_INDEX:
        raise invalid_field("header:last-event-id", "must be an index that came as `id`")
    return int(found[1]), _AFTER_END if found[2] else "header:last-event-id"


AfterDep = Annotated[tuple[int, str], Depends(_resume_position)]


@router.post(
    "/stream",
    operation_id="createStream",
    summary="Ask, and read the answer while it is given",
    responses=_RESPONSES,
)
async def start_stream(
    body: StreamRequest,
    gateway: GatewayDep,
    tenant: TenantDep,
    key: IdempotencyKeyDep,
    options: StreamOptionsDep,
) -> Response:
    """As server-sent events, or as JSON lines with `Accept: application/x-ndjson`. A reader that is cut off goes on
    at the `Location` of this answer with `Last-Event-ID`; the run does not mind, unless `onDisconnect=cancel`.
    """
    return _streaming_response(await StreamSubscription.start(gateway, tenant, body, key), options)


@router.get(
    "/stream/{stream_id}", operation_id="resumeStream", summary="Go on reading a stream", responses=_RESPONSES
)
async def resume_stream(
    stream_id: Annotated[str, Path(description="The `X-Stream-Id` of the start.")],
    gateway: GatewayDep,
    tenant: TenantDep,
    after: AfterDep,
    options: StreamOptionsDep,
) -> Response:
    """From after the index that you have, at any process, while it runs or later."""
    return await follow_run(_check_stream_id(stream_id), gateway, tenant, after, options)


@router.get("/runs/{run_id}/stream", operation_id="streamRun", summary="Follow a run", responses=_RESPONSES)
async def follow_run(
    run_id: RunId,
    gateway: GatewayDep,
    tenant: TenantDep,
    after: AfterDep,
    options: StreamOptionsDep,
) -> Response:
    """What the run's agent says, whichever pattern it serves."""
    index, pointer = after
    if pointer == _AFTER_END and (await find_run(gateway, tenant, run_id)).close_time is not None:
        return Response(status_code=204)
    return _streaming_response(await subscribe(gateway, tenant, run_id, index, pointer), options)


@router.post(
    "/stream/{stream_id}/cancel",
    operation_id="cancelStream",
    summary="Stop a stream",
    status_code=202,
    responses={200: {"model": Run, "description": "It had ended already."}, **PROBLEMS},
)
async def cancel_stream(
    stream_id: Annotated[str, Path(description="The `X-Stream-Id` of the start.")],
    gateway: GatewayDep,
    tenant: TenantDep,
    response: Response,
) -> Run:
    """Tells the agent to stop; every reader gets the end with the status `cancelled`."""
    return await cancel_run(_check_stream_id(stream_id), gateway, tenant, response)


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
    """The pieces; a reader who goes away in the middle takes the run along, if it said so."""
    try:
        async for piece in pieces:
            yield piece
    except (asyncio.CancelledError, GeneratorExit):
        if cancels_run:
            subscription.cancel_in_background()
        raise


async def _as_sse(subscription: StreamSubscription) -> AsyncIterator[bytes]:
    yield format_sse_event(retry=RETRY_MILLISECONDS)
    async for lines in subscription.lines():
        yield b"".join(map(_format_event, lines)) or b": still here\n\n"


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
