"""`GET /events/stream`: events and what reactions found, as server-sent events (Event + Streaming)."""

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

from sevenfold.adapters.events.activity_feed import OVERLAP, ActivityItem
from sevenfold.api.dependencies import API_PREFIX, Gateway, GatewayDep, TenantDep
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.problems import invalid_field
from sevenfold.api.http.sse import HEARTBEAT_SECONDS, RETRY_MILLISECONDS, STREAM_HEADERS
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.http.time_params import TimeParam
from sevenfold.contracts.events import to_keyword

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
        "description": "`event`: a CloudEvent that was accepted. `reaction`: one that has ended. `reconnect`: this "
        "process stops, or the reader is too slow; go on with `Last-Event-ID`.",
        "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}},
    },
    **PROBLEMS,
}

_Text = Annotated[str | None, Query(max_length=1_024)]
_RECONNECT = format_sse_event(data_str='{"reconnect":true}', event="reconnect")


@dataclass(frozen=True)
class _StreamFilter:
    """Which happenings a reader wants, and from when on; `after` is the last one that it has."""

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
    event_type: Annotated[_Text, Query(alias="type", description="Of the event, or of the one reacted to.")] = None,
    source: _Text = None,
    correlation: _Text = None,
    subscription: Annotated[_Text, Query(description="Reactions of this subscription alone.")] = None,
    kind: Annotated[Literal["event", "reaction"] | None, Query(description="Both, if absent.")] = None,
    since: TimeParam | None = None,
    last_event_id: Annotated[
        str | None, Header(description="Goes on after that one. What was sent in its last 5 s may come again.")
    ] = None,
) -> _StreamFilter:
    after = None
    if last_event_id is not None:
        match = re.fullmatch(r"([0-9]{1,14})-([a-z]{3}_[a-z2-7]{26})", last_event_id)
        if match is None:
            raise invalid_field("header:last-event-id", "must be an id that came in this stream")
        since, after = datetime.fromtimestamp(int(match[1]) / 1000, UTC) - OVERLAP, last_event_id
    return _StreamFilter(event_type, source, correlation, subscription, kind, since, after)


@router.get(
    "/events/stream",
    operation_id="streamEvents",
    summary="Watch events",
    response_class=Response,
    responses=_RESPONSES,
)
async def watch_events(
    gateway: GatewayDep, tenant: TenantDep, stream_filter: Annotated[_StreamFilter, Depends(_parse_filter)]
) -> Response:
    """From now on, or `since`. About half a second after they happened."""
    return StreamingResponse(
        _stream_events(gateway, tenant, stream_filter), media_type="text/event-stream", headers=dict(STREAM_HEADERS)
    )


async def _stream_events(gateway: Gateway, tenant: str, stream_filter: _StreamFilter) -> AsyncIterator[bytes]:
    yield format_sse_event(retry=RETRY_MILLISECONDS)
    async with gateway.activity_feed.subscribe(tenant) as queue:
        sent: set[str] = {stream_filter.after} if stream_filter.after else set()
        if stream_filter.since is not None:
            try:
                async for page in gateway.activity_feed.read_since(tenant, stream_filter.since):
                    for item in page:
                        identity = _item_id(item)
                        if stream_filter.matches(item) and identity not in sent:
                            yield _format_item(item)
                        if datetime.now(UTC) - item.occurred_at < 4 * OVERLAP:  # the queue may bring it once more
                            sent.add(identity)
            except RPCError:
                yield _RECONNECT
                return
        while not (queue.full() or gateway.streams.stopping.is_set()):
            next_item = await _next_item(queue, gateway.streams.stopping)
            if next_item is None:
                yield b": still here\n\n"
            elif stream_filter.matches(next_item) and _item_id(next_item) not in sent:
                yield _format_item(next_item)
    yield _RECONNECT


async def _next_item(queue: asyncio.Queue[ActivityItem], stopping: asyncio.Event) -> ActivityItem | None:
    """What happens next; None when nothing did for a while, or this process stops."""
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
