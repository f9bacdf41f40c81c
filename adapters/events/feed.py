"""What happens among events, as it happens: one reader of visibility for all who watch at this process."""

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

from adapters.concurrency import few_at_once
from adapters.events.stored import whole_event
from adapters.run_outcomes import ended_run, status_of
from contracts.answers import Answer
from contracts.events import CAUSE, ReactionCause
from contracts.identity import public_id
from contracts.runs import RunStatus

log = structlog.get_logger(__name__)

_PAUSE_SECONDS = 0.4

# Visibility lags: what it shows late is still found if it is no later than this.
OVERLAP = timedelta(seconds=5)

# Of what happened before a reader came, so much is read at once.
_PAGE = 200
_SHORTEST_SPAN = timedelta(milliseconds=2)

# A reader that is so far behind has to come back, and goes on from where it was.
_MOST_UNREAD = 2_000

_CORRELATION = SearchAttributeKey.for_keyword("CorrelationId")
_SOURCE_RUN = SearchAttributeKey.for_keyword("SourceRun")


@dataclass(frozen=True)
class Happening:
    """An event that was accepted, or a reaction that has ended. `type` and `source` are the event's in question."""

    kind: str
    id: str
    at: datetime
    type: str
    source: str
    correlation: str
    subscription: str | None
    body: dict[str, Any]


@dataclass
class _Watch:
    readers: set[asyncio.Queue[Happening]] = field(default_factory=set)
    following: asyncio.Task[None] | None = None


class EventFeed:
    """Asks Temporal's visibility while somebody watches, and not otherwise."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._watches: dict[str, _Watch] = {}

    @asynccontextmanager
    async def joined(self, tenant: str) -> AsyncIterator[asyncio.Queue[Happening]]:
        """What happens from now on. A queue that has run over is full, and gets nothing more."""
        watch = self._watches.setdefault(tenant, _Watch())
        queue: asyncio.Queue[Happening] = asyncio.Queue(_MOST_UNREAD)
        watch.readers.add(queue)
        if watch.following is None or watch.following.done():
            watch.following = asyncio.create_task(self._follow(tenant, watch))
        try:
            yield queue
        finally:
            watch.readers.discard(queue)

    async def since(self, tenant: str, moment: datetime) -> AsyncIterator[list[Happening]]:
        """All that happened from then on, in order, as far as visibility has it; page by page, each of a span of time
        in which not too much has happened.
        """
        now = datetime.now(UTC)
        span = now - moment
        while moment < now:
            end = min(now, moment + span)
            if span > _SHORTEST_SPAN and await self._count(tenant, moment, end) > _PAGE:
                span /= 2
                continue
            yield await self._happenings(await self._all_listed(tenant, moment, end))
            moment = end
            span *= 2

    async def _count(self, tenant: str, since: datetime, until: datetime) -> int:
        queries = [
            _query(tenant, "EventDriven", "StartTime", since, until),
            _query(tenant, "EventReaction", "CloseTime", since, until),
        ]
        return sum([(await self._client.count_workflows(query)).count for query in queries])

    async def _follow(self, tenant: str, watch: _Watch) -> None:
        """Reads on for as long as somebody watches; a Temporal that is away for a moment is asked again."""
        moment = datetime.now(UTC)
        told: dict[str, datetime] = {}
        while watch.readers:
            asked_at = datetime.now(UTC)
            try:
                told |= dict.fromkeys(await self._tell(tenant, watch, moment - OVERLAP, told), asked_at)
                told = {run: at for run, at in told.items() if asked_at - at < 4 * OVERLAP}
                moment = asked_at
            except Exception as error:  # whoever watches must not wait for one that gave up
                log.warning("events could not be looked at; trying again", error=str(error))
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _tell(self, tenant: str, watch: _Watch, since: datetime, told: Collection[str]) -> list[str]:
        """Tells all who watch what they have not been told yet; the run ids of what there is."""
        listed = await self._all_listed(tenant, since)
        for happening in await self._happenings([one for one in listed if one.run_id not in told]):
            for queue in watch.readers:
                with suppress(asyncio.QueueFull):
                    queue.put_nowait(happening)
        return [one.run_id for one in listed]

    async def _all_listed(
        self, tenant: str, since: datetime, until: datetime | None = None
    ) -> list[WorkflowExecution]:
        begun = await self._listed(_query(tenant, "EventDriven", "StartTime", since, until))
        return [*begun, *await self._listed(_query(tenant, "EventReaction", "CloseTime", since, until))]

    async def _listed(self, query: str) -> list[WorkflowExecution]:
        return [execution async for execution in self._client.list_workflows(query)]

    async def _happenings(self, executions: list[WorkflowExecution]) -> list[Happening]:
        found = await few_at_once(self._happening, executions)
        return sorted((one for one in found if one is not None), key=lambda happening: happening.at)

    async def _happening(self, execution: WorkflowExecution) -> Happening | None:
        """None for what cannot be decoded: it must not hide all the others."""
        try:
            if execution.workflow_type == "EventDriven":
                return await self._accepted(execution)
            return await self._reacted(execution)
        except RPCError:
            raise
        except Exception as error:
            log.warning("an event or reaction cannot be shown", workflow=execution.id, error=repr(error)[:500])
            return None

    async def _accepted(self, execution: WorkflowExecution) -> Happening:
        event = await whole_event(self._client, execution)
        return Happening(
            kind="event",
            id=public_id(execution.id),
            at=execution.start_time,
            type=event.type,
            source=event.source,
            correlation=execution.typed_search_attributes.get(_CORRELATION, ""),
            subscription=None,
            body=event.as_json(),
        )

    async def _reacted(self, execution: WorkflowExecution) -> Happening:
        cause: ReactionCause = await execution.memo_value(CAUSE, type_hint=ReactionCause)
        status = status_of(execution)
        body: dict[str, Any] = {
            "id": public_id(execution.id),
            "subscription": cause.subscription,
            "eventId": execution.typed_search_attributes.get(_SOURCE_RUN, ""),
            "status": status,
        }
        if status in (RunStatus.COMPLETED, RunStatus.FAILED):
            result, error = await ended_run(self._client, execution.id)
            if result:
                body["result"] = Answer.of(result).model_dump(mode="json", by_alias=True, exclude_none=True)
            if error:
                body["error"] = error.model_dump(mode="json", by_alias=True, exclude_none=True)
        return Happening(
            kind="reaction",
            id=public_id(execution.id),
            at=execution.close_time or execution.start_time,
            type=cause.type,
            source=cause.source,
            correlation=execution.typed_search_attributes.get(_CORRELATION, ""),
            subscription=cause.subscription,
            body=body,
        )


def _query(tenant: str, workflow_type: str, when: str, since: datetime, until: datetime | None) -> str:
    query = f"WorkflowType = '{workflow_type}' AND Tenant = '{tenant}' AND {when} >= '{since.isoformat()}'"
    return query if until is None else f"{query} AND {when} < '{until.isoformat()}'"
