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

from adapters.events.feed import OVERLAP, Happening
from api.gateway import API_PREFIX, Gateway, GatewayDep, TenantDep
from api.long_answers import BEAT_SECONDS, RETRY, STREAM_HEADERS
from api.moments import Moment
from api.problem_docs import PROBLEMS
from api.problems import invalid
from api.strict_json import StrictJsonRoute
from contracts.events import indexed

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
class _Wanted:
    """Which happenings a reader wants, and from when on; `after` is the last one that it has."""

    type: str | None
    source: str | None
    correlation: str | None
    subscription: str | None
    kind: str | None
    since: datetime | None
    after: str | None = None

    def takes(self, happening: Happening) -> bool:
        wanted = (
            (self.type, happening.type),
            (self.source, happening.source),
            (indexed(self.correlation) if self.correlation else None, happening.correlation),
            (self.subscription, happening.subscription),
            (self.kind, happening.kind),
        )
        return all(value is None or value == given for value, given in wanted)


async def _wanted(
    event_type: Annotated[_Text, Query(alias="type", description="Of the event, or of the one reacted to.")] = None,
    source: _Text = None,
    correlation: _Text = None,
    subscription: Annotated[_Text, Query(description="Reactions of this subscription alone.")] = None,
    kind: Annotated[Literal["event", "reaction"] | None, Query(description="Both, if absent.")] = None,
    since: Moment | None = None,
    last_event_id: Annotated[
        str | None, Header(description="Goes on after that one. What was sent in its last 5 s may come again.")
    ] = None,
) -> _Wanted:
    after = None
    if last_event_id is not None:
        match = re.fullmatch(r"([0-9]{1,14})-([a-z]{3}_[a-z2-7]{26})", last_event_id)
        if match is None:
            raise invalid("header:last-event-id", "must be an id that came in this stream")
        since, after = datetime.fromtimestamp(int(match[1]) / 1000, UTC) - OVERLAP, last_event_id
    return _Wanted(event_type, source, correlation, subscription, kind, since, after)


@router.get(
    "/events/stream",
    operation_id="streamEvents",
    summary="Watch events",
    response_class=Response,
    responses=_RESPONSES,
)
async def watch_events(
    gateway: GatewayDep, tenant: TenantDep, wanted: Annotated[_Wanted, Depends(_wanted)]
) -> Response:
    """From now on, or `since`. About half a second after they happened."""
    return StreamingResponse(
        _watched(gateway, tenant, wanted), media_type="text/event-stream", headers=dict(STREAM_HEADERS)
    )


async def _watched(gateway: Gateway, tenant: str, wanted: _Wanted) -> AsyncIterator[bytes]:
    yield format_sse_event(retry=RETRY)
    async with gateway.feed.joined(tenant) as queue:
        sent: set[str] = {wanted.after} if wanted.after else set()
        if wanted.since is not None:
            try:
                async for page in gateway.feed.since(tenant, wanted.since):
                    for happening in page:
                        identity = _identity(happening)
                        if wanted.takes(happening) and identity not in sent:
                            yield _event(happening)
                        if datetime.now(UTC) - happening.at < 4 * OVERLAP:  # the queue may bring it once more
                            sent.add(identity)
            except RPCError:
                yield _RECONNECT
                return
        while not (queue.full() or gateway.streams.stopping.is_set()):
            happening_or_none = await _next(queue, gateway.streams.stopping)
            if happening_or_none is None:
                yield b": still here\n\n"
            elif wanted.takes(happening_or_none) and _identity(happening_or_none) not in sent:
                yield _event(happening_or_none)
    yield _RECONNECT


async def _next(queue: asyncio.Queue[Happening], stopping: asyncio.Event) -> Happening | None:
    """What happens next; None when nothing did for a while, or this process stops."""
    waiting = [asyncio.ensure_future(queue.get()), asyncio.ensure_future(stopping.wait())]
    try:
        await asyncio.wait(waiting, timeout=BEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        return waiting[0].result() if waiting[0].done() else None  # type: ignore[return-value]
    finally:
        for one in waiting:
            one.cancel()


def _identity(happening: Happening) -> str:
    return f"{int(happening.at.timestamp() * 1000)}-{happening.id}"


def _event(happening: Happening) -> bytes:
    said = json.dumps(happening.body, ensure_ascii=False, separators=(",", ":"))
    return format_sse_event(data_str=said, event=happening.kind, id=_identity(happening))
