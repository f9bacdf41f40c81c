"""`/v1/responses`: start, read, stream, cancel and delete responses."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import JSONResponse, StreamingResponse

from sevenfold.api.dependencies import PrincipalDep, TenantDep
from sevenfold.api.http.authorization import OPENAI_PREFIX
from sevenfold.api.http.problems import invalid_field
from sevenfold.api.http.sse import STREAM_HEADERS
from sevenfold.api.openai.answers import text_of
from sevenfold.api.openai.conversations import from_items, to_item
from sevenfold.api.openai.disconnects import GRACE_SECONDS, OnDisconnect, cancel_on_disconnect
from sevenfold.api.openai.requests import OpenAIRoute, ResponsesRequest
from sevenfold.api.openai.response_events import ResponseEvents
from sevenfold.api.openai.response_objects import (
    ResponseHead,
    build_message,
    build_response,
    to_response_id,
    to_run_id,
)
from sevenfold.api.openai.response_store import ResponseStore, ResponseStoreDep
from sevenfold.api.openai.starts import Conversation, OpenAIStartsDep, RepeatDep
from sevenfold.api.runs.await_result import await_run
from sevenfold.api.runs.dependencies import RunReaderDep
from sevenfold.api.runs.router import request_cancellation
from sevenfold.api.streams.lines import StreamSubscription
from sevenfold.api.streams.permissions import check_cancel
from sevenfold.contracts.access.principals import Principal
from sevenfold.contracts.runs.outcomes import RunAnswer
from sevenfold.contracts.runs.run import Pattern, RunStatus

router = APIRouter(prefix=OPENAI_PREFIX, include_in_schema=False, route_class=OpenAIRoute)

# How long the request waits for the end of the run. After that the answer has the status `in_progress`.
_CANCEL_SECONDS, _CANCEL_INTERVAL = 5.0, 0.1

ResponseId = Annotated[str, Path(max_length=200)]


@router.post("/responses")
async def create_response(
    body: ResponsesRequest,
    starts: OpenAIStartsDep,
    store: ResponseStoreDep,
    principal: PrincipalDep,
    repeat: RepeatDep,
    on_disconnect: OnDisconnect = None,
) -> Response:
    """Answers when the run has ended, streams its events, or answers at once with `background`."""
    for name in ("conversation", "prompt"):
        if getattr(body, name) is not None:
            raise invalid_field(f"/{name}", "is not supported; continue a response with previous_response_id")
    is_stored = body.store is not False
    if body.background and not is_stored:
        raise invalid_field("/store", "must be true with background: such a response is read later")
    messages = await store.continue_from(principal, body.previous_response_id, from_items(body.input))
    conversation = Conversation(messages, body.instructions, body.previous_response_id, is_stored)
    if body.stream:
        if on_disconnect == "cancel":
            check_cancel(principal)
        subscription = await starts.start_stream(principal, body, conversation, repeat)
        head = ResponseHead.of_request(subscription.run_id, body)
        return _stream(ResponseEvents(head, store.reader, principal), subscription, cancels=on_disconnect == "cancel")
    pattern = Pattern.POLLING if body.background else Pattern.SYNCHRONOUS
    started = await starts.start(principal, body, conversation, repeat, pattern=pattern)
    head = ResponseHead.of_request(started.run_id, body)
    if body.background and not started.replayed:
        return JSONResponse(head.build(RunStatus.QUEUED, []))
    if not body.background:
        result = await await_run(started, body.start_options().timeout + GRACE_SECONDS, {})
        if result is not None:
            answer = RunAnswer.from_result(result)
            item = build_message(started.run_id, 0, text_of(answer), "completed")
            return JSONResponse(head.build_completed(answer, item, head.created_at + result.duration_seconds))
    return await _read(store, principal, to_response_id(started.run_id), is_own=True)


@router.get("/responses/{response_id}")
async def read_response(
    response_id: ResponseId,
    store: ResponseStoreDep,
    principal: PrincipalDep,
    stream: bool = False,
    starting_after: Annotated[int | None, Query(ge=0, le=10**15)] = None,
) -> Response:
    """Returns the response as it is now, or streams the events after a sequence number."""
    if stream:
        events, subscription = await store.stream(principal, response_id, starting_after)
        return _stream(events, subscription, cancels=False)
    return await _read(store, principal, response_id)


@router.post("/responses/{response_id}/cancel")
async def cancel_response(
    response_id: ResponseId, store: ResponseStoreDep, reader: RunReaderDep, principal: PrincipalDep
) -> Response:
    """Cancels the run, and waits a moment until it has ended."""
    run_id = to_run_id(response_id)
    await request_cancellation(reader, principal, run_id)
    description = await reader.find(principal.tenant, run_id)
    waited = 0.0
    while description.close_time is None and waited < _CANCEL_SECONDS:
        await asyncio.sleep(_CANCEL_INTERVAL)
        waited += _CANCEL_INTERVAL
        description = await reader.find(principal.tenant, run_id)
    if principal.may_read_runs:
        return await _read(store, principal, response_id)
    run = await reader.load(description)
    return JSONResponse(ResponseHead(run.id, run.agent, int(run.created_at.timestamp())).build(run.status, []))


@router.delete("/responses/{response_id}")
async def delete_response(response_id: ResponseId, store: ResponseStoreDep, tenant: TenantDep) -> Response:
    """Deletes the run of a response that has ended."""
    await store.delete(tenant, response_id)
    return JSONResponse({"id": response_id, "object": "response", "deleted": True})


@router.get("/responses/{response_id}/input_items")
async def list_input_items(
    response_id: ResponseId,
    store: ResponseStoreDep,
    tenant: TenantDep,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Response:
    """Lists the messages of the conversation that the response answers."""
    messages = await store.load_messages(tenant, response_id)
    items = [to_item(message, f"msg_{to_run_id(response_id)}_in{n}") for n, message in enumerate(messages)]
    return JSONResponse(_page(items if order == "asc" else items[::-1], after, limit))


def _page(items: Sequence[dict[str, Any]], after: str | None, limit: int) -> dict[str, Any]:
    ids = [one["id"] for one in items]
    if after is not None and after not in ids:
        raise invalid_field("query:after", "must be the id of an item of this list")
    start = ids.index(after) + 1 if after is not None else 0
    page = items[start : start + limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": start + limit < len(items),
    }


async def _read(store: ResponseStore, principal: Principal, response_id: str, *, is_own: bool = False) -> Response:
    run, run_input = await store.load(principal.tenant, response_id, is_own=is_own)
    return JSONResponse(build_response(run.shown_to(principal), run_input))


def _stream(events: ResponseEvents, subscription: StreamSubscription, *, cancels: bool) -> StreamingResponse:
    pieces = cancel_on_disconnect(subscription, events.of(subscription), cancels=cancels)
    headers = {**STREAM_HEADERS, "X-Stream-Id": subscription.run_id}
    return StreamingResponse(pieces, media_type="text/event-stream", headers=headers)
