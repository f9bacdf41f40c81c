"""`GET /events/stream`: accepted events and ended reactions as server-sent events."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from temporalio.service import RPCError

from sevenfold.adapters.events.activity_feed import OVERLAP, ActivityFeed, ActivityItem
from sevenfold.api.dependencies import API_PREFIX, TenantDep
from sevenfold.api.events.dependencies import ActivityFeedDep, StreamHubsDep
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.problems import invalid_field
from sevenfold.api.http.sse import HEARTBEAT_SECONDS, RETRY_MILLISECONDS, STREAM_HEADERS
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.http.time_params import TimeParam
from sevenfold.contracts.events.event_driven import to_keyword

router = APIRouter(prefix=API_PREFIX, tags=["event-driven"], route_class=StrictJsonRoute)

_EXAMPLE = """event: event
id: 1795860000123-evt_nu6hpht6ae22brw7l5oqknvgge
data: {"specversion":"1.0","id":"c-12345","source":"/shop/customers","type":"customer.created","data":{"id":"12345"}}

event: reaction
id: 1795860000345-rea_5hjq2ap3xwnmcv7tkzr4ydb6ou
data: {"id":"rea_5hjq2ap3xwnmcv7tkzr4ydb6ou","subscription":"enrich-customers","eventId":"evt_…","status":"completed"}

"""
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`event`: an accepted CloudEvent. `reaction`: an ended reaction. `reconnect`: this process "
        "stops, or the reader is too slow; resume with `Last-Event-ID`.",
        "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}},
    },
    **PROBLEMS,
}

_Text = Annotated[str | None, Query(max_length=1_024)]
_RECONNECT = format_sse_event(data_str='{"reconnect":true}', event="reconnect")


@dataclass(frozen=True)
class _StreamFilter:
    """Which items a reader wants, and from when on. `after` is the id of the last item that it has."""

    type: str | None
    source: str | None
    correlation: str | None
    subscription: str | None
    kind: str | None
    since: datetime | None
    after: str | None = None

    def matches(self, item: ActivityItem) -> bool:
        conditions = (
            (self.type, item.type),
            (self.source, item.source),
            (to_keyword(self.correlation) if self.correlation else None, item.correlation_id),
            (self.subscription, item.subscription),
            (self.kind, item.kind),
        )
        return all(value is None or value == actual for value, actual in conditions)


async def _parse_filter(
    event_type: Annotated[
        _Text, Query(alias="type", description="The type of the event, or of the event that a reaction is to.")
    ] = None,
    source: _Text = None,
    correlation: _Text = None,
    subscription: Annotated[_Text, Query(description="Only reactions of this subscription.")] = None,
    kind: Annotated[Literal["event", "reaction"] | None, Query(description="Both kinds if absent.")] = None,
    since: TimeParam | None = None,
    last_event_id: Annotated[
        str | None, Header(description="Resumes after this item. Items of the 5 s before it may be repeated.")
    ] = None,
) -> _StreamFilter:
    after = None
    if last_event_id is not None:
        match = re.fullmatch(r"([0-9]{1,14})-([a-z]{3}_[a-z2-7]{26})", last_event_id)
        if match is None:
            raise invalid_field("header:last-event-id", "must be the `id` of an item of this stream")
        since, after = datetime.fromtimestamp(int(match[1]) / 1000, UTC) - OVERLAP, last_event_id
    return _StreamFilter(event_type, source, correlation, subscription, kind, since, after)


@router.get(
    "/events/stream",
    operation_id="streamEvents",
    summary="Stream events",
    response_class=Response,
    responses=_RESPONSES,
)
async def stream_events(
    feed: ActivityFeedDep,
    hubs: StreamHubsDep,
    tenant: TenantDep,
    stream_filter: Annotated[_StreamFilter, Depends(_parse_filter)],
) -> Response:
    """Streams items from now on, or from `since`, about half a second after they happen."""
    return StreamingResponse(
        _stream_items(feed, hubs.stopping, tenant, stream_filter),
        media_type="text/event-stream",
        headers=dict(STREAM_HEADERS),
    )


async def _stream_items(
    feed: ActivityFeed, stopping: asyncio.Event, tenant: str, stream_filter: _StreamFilter
) -> AsyncIterator[bytes]:
    yield format_sse_event(retry=RETRY_MILLISECONDS)
    async with feed.subscribe(tenant) as queue:
        sent: set[str] = {stream_filter.after} if stream_filter.after else set()
        if stream_filter.since is not None:
            try:
                async for page in feed.read_since(tenant, stream_filter.since):
                    for item in page:
                        identity = _item_id(item)
                        if stream_filter.matches(item) and identity not in sent:
                            yield _format_item(item)
                        if datetime.now(UTC) - item.occurred_at < 4 * OVERLAP:  # the queue may hold it too
                            sent.add(identity)
            except RPCError:
                yield _RECONNECT
                return
        while not (queue.full() or stopping.is_set()):
            next_item = await _next_item(queue, stopping)
            if next_item is None:
                yield b": heartbeat\n\n"
            elif stream_filter.matches(next_item) and _item_id(next_item) not in sent:
                yield _format_item(next_item)
    yield _RECONNECT


async def _next_item(queue: asyncio.Queue[ActivityItem], stopping: asyncio.Event) -> ActivityItem | None:
    """Returns the next item; None after a pause without one, or when this process stops."""
    tasks = [asyncio.ensure_future(queue.get()), asyncio.ensure_future(stopping.wait())]
    try:
        await asyncio.wait(tasks, timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].result() if tasks[0].done() else None  # type: ignore[return-value]
    finally:
        for one in tasks:
            one.cancel()


def _item_id(item: ActivityItem) -> str:
    return f"{int(item.occurred_at.timestamp() * 1000)}-{item.id}"


def _format_item(item: ActivityItem) -> bytes:
    body = json.dumps(item.body, ensure_ascii=False, separators=(",", ":"))
    return format_sse_event(data_str=body, event=item.kind, id=_item_id(item))
