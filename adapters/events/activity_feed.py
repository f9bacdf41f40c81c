"""Live feed of accepted events and finished reactions: one visibility poller per tenant and process for all
subscribers.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from temporalio.client import Client, WorkflowExecution
from temporalio.common import SearchAttributeKey
from temporalio.service import RPCError

from sevenfold.adapters.events.stored import load_event
from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.adapters.temporal.run_outcomes import fetch_outcome, to_run_status
from sevenfold.contracts import workflow_types
from sevenfold.contracts.events.event_driven import CAUSE_MEMO, ReactionCause
from sevenfold.contracts.identity import parse_public_id
from sevenfold.contracts.runs.outcomes import RunAnswer
from sevenfold.contracts.runs.run import RunStatus

log = structlog.get_logger(__name__)

_PAUSE_SECONDS = 0.4

# Visibility lags: items that appear up to this much late are still found.
OVERLAP = timedelta(seconds=5)

# Page size when reading past items.
_PAGE = 200
_MIN_SPAN = timedelta(milliseconds=2)

# A subscriber with this many unread items is disconnected, and resumes from its position.
_MAX_UNREAD = 2_000

_CORRELATION_ID = SearchAttributeKey.for_keyword("CorrelationId")
_SOURCE_RUN = SearchAttributeKey.for_keyword("SourceRun")


@dataclass(frozen=True)
class ActivityItem:
    """An accepted event or a finished reaction. `type` and `source` are those of the event."""

    kind: str
    id: str
    occurred_at: datetime
    type: str
    source: str
    correlation_id: str
    subscription: str | None
    body: dict[str, Any]


@dataclass
class _Subscribers:
    queues: set[asyncio.Queue[ActivityItem]] = field(default_factory=set)
    poller: asyncio.Task[None] | None = None


class ActivityFeed:
    """Polls Temporal's visibility while there are subscribers."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._subscribers: dict[str, _Subscribers] = {}

    @asynccontextmanager
    async def subscribe(self, tenant: str) -> AsyncIterator[asyncio.Queue[ActivityItem]]:
        """Yields a queue of the items from now on. A full queue gets no further items."""
        subscribers = self._subscribers.setdefault(tenant, _Subscribers())
        queue: asyncio.Queue[ActivityItem] = asyncio.Queue(_MAX_UNREAD)
        subscribers.queues.add(queue)
        if subscribers.poller is None or subscribers.poller.done():
            subscribers.poller = asyncio.create_task(self._poll(tenant, subscribers))
        try:
            yield queue
        finally:
            subscribers.queues.discard(queue)

    async def read_since(self, tenant: str, start: datetime) -> AsyncIterator[list[ActivityItem]]:
        """Yields all items since `start`, in order, as far as visibility has them: in pages, each for a period
        without too many items.
        """
        now = datetime.now(UTC)
        span = now - start
        while start < now:
            end = min(now, start + span)
            if span > _MIN_SPAN and await self._count(tenant, start, end) > _PAGE:
                span /= 2
                continue
            yield await self._load_items(await self._list_all(tenant, start, end))
            start = end
            span *= 2

    async def _count(self, tenant: str, since: datetime, until: datetime) -> int:
        queries = [
            _query(tenant, workflow_types.EVENT_DRIVEN, "StartTime", since, until),
            _query(tenant, workflow_types.EVENT_REACTION, "CloseTime", since, until),
        ]
        return sum([(await self._client.count_workflows(query)).count for query in queries])

    async def _poll(self, tenant: str, subscribers: _Subscribers) -> None:
        """Polls while there are subscribers; retries while Temporal is down."""
        position = datetime.now(UTC)
        published: dict[str, datetime] = {}
        while subscribers.queues:
            polled_at = datetime.now(UTC)
            try:
                published |= dict.fromkeys(
                    await self._publish_new(tenant, subscribers, position - OVERLAP, published), polled_at
                )
                published = {run: at for run, at in published.items() if polled_at - at < 4 * OVERLAP}
                position = polled_at
            except Exception as error:  # The poller must survive, because subscribers wait for it.
                log.warning("polling events failed, retrying", error=str(error))
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _publish_new(
        self, tenant: str, subscribers: _Subscribers, since: datetime, published: Collection[str]
    ) -> list[str]:
        """Sends new items to all subscribers; returns the run ids of all items listed."""
        listed = await self._list_all(tenant, since)
        for item in await self._load_items([one for one in listed if one.run_id not in published]):
            for queue in subscribers.queues:
                with suppress(asyncio.QueueFull):
                    queue.put_nowait(item)
        return [one.run_id for one in listed]

    async def _list_all(self, tenant: str, since: datetime, until: datetime | None = None) -> list[WorkflowExecution]:
        events = await self._list(_query(tenant, workflow_types.EVENT_DRIVEN, "StartTime", since, until))
        return [*events, *await self._list(_query(tenant, workflow_types.EVENT_REACTION, "CloseTime", since, until))]

    async def _list(self, query: str) -> list[WorkflowExecution]:
        return [execution async for execution in self._client.list_workflows(query)]

    async def _load_items(self, executions: list[WorkflowExecution]) -> list[ActivityItem]:
        found = await gather_bounded(self._load_item, executions)
        return sorted((one for one in found if one is not None), key=lambda item: item.occurred_at)

    async def _load_item(self, execution: WorkflowExecution) -> ActivityItem | None:
        """Returns None for an item that cannot be decoded, which must not hide the others."""
        try:
            if execution.workflow_type == workflow_types.EVENT_DRIVEN:
                return await self._load_event_item(execution)
            return await self._load_reaction_item(execution)
        except RPCError:
            raise
        except Exception as error:
            log.warning("an event or reaction cannot be decoded", workflow=execution.id, error=type(error).__name__)
            return None

    async def _load_event_item(self, execution: WorkflowExecution) -> ActivityItem:
        event = await load_event(self._client, execution)
        return ActivityItem(
            kind="event",
            id=parse_public_id(execution.id),
            occurred_at=execution.start_time,
            type=event.type,
            source=event.source,
            correlation_id=execution.typed_search_attributes.get(_CORRELATION_ID, ""),
            subscription=None,
            body=event.to_json(),
        )

    async def _load_reaction_item(self, execution: WorkflowExecution) -> ActivityItem:
        cause: ReactionCause = await execution.memo_value(CAUSE_MEMO, type_hint=ReactionCause)
        status = to_run_status(execution)
        body: dict[str, Any] = {
            "id": parse_public_id(execution.id),
            "subscription": cause.subscription,
            "eventId": execution.typed_search_attributes.get(_SOURCE_RUN, ""),
            "status": status,
        }
        if status in (RunStatus.COMPLETED, RunStatus.FAILED):
            result, error = await fetch_outcome(self._client, execution.id)
            if result:
                body["result"] = RunAnswer.from_result(result).model_dump(
                    mode="json", by_alias=True, exclude_none=True
                )
            if error:
                body["error"] = error.model_dump(mode="json", by_alias=True, exclude_none=True)
        return ActivityItem(
            kind="reaction",
            id=parse_public_id(execution.id),
            occurred_at=execution.close_time or execution.start_time,
            type=cause.type,
            source=cause.source,
            correlation_id=execution.typed_search_attributes.get(_CORRELATION_ID, ""),
            subscription=cause.subscription,
            body=body,
        )


def _query(tenant: str, workflow_type: str, when: str, since: datetime, until: datetime | None) -> str:
    query = f"WorkflowType = '{workflow_type}' AND Tenant = '{tenant}' AND {when} >= '{since.isoformat()}'"
    return query if until is None else f"{query} AND {when} < '{until.isoformat()}'"
