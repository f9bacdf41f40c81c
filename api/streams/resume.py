"""Starts a run for a reader of its stream, or resumes the stream of one that exists, wherever it runs."""

from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends
from temporalio.client import Client

from sevenfold.adapters.metrics.streams import RESUMES
from sevenfold.adapters.streams.hub import StreamHubs
from sevenfold.adapters.temporal.run_starts import RunQueue
from sevenfold.api.dependencies import component
from sevenfold.api.http.problems import invalid_field
from sevenfold.api.runs.reader import RunReader
from sevenfold.api.runs.start import RunStarter
from sevenfold.api.streams.detached import DetachedTasks
from sevenfold.api.streams.lines import StreamSubscription, fetch_stream_outcome, gone_problem
from sevenfold.contracts.access.principals import Principal
from sevenfold.contracts.identity import build_workflow_id
from sevenfold.contracts.runs.requests import StreamRequest
from sevenfold.contracts.runs.run import GENERATION_MEMO, Pattern, RunOutcome
from sevenfold.contracts.runs.streams import MAX_UNCONFIRMED, RESET_STEP


@dataclass(frozen=True)
class StreamOpener:
    """Opens streams, whatever the transport."""

    client: Client
    hubs: StreamHubs
    starter: RunStarter
    reader: RunReader
    detached: DetachedTasks

    async def start(self, principal: Principal, body: StreamRequest, key: str | None) -> StreamSubscription:
        """Starts a stream, or subscribes to the one that this key or run token started before."""
        tenant = principal.tenant
        run = self.starter.prepare(Pattern.STREAMING, tenant, body, task="query", key=key, grant=principal.run)
        workflow_input = await self.starter.build_input(
            run, query=body.query, context=body.context, messages=body.messages
        )
        started = await self.starter.start(run, workflow_input, queue=RunQueue.STREAM, fails_fast=True)
        if started.replayed:
            return replace(await self.subscribe(tenant, started.run_id), replayed=True)
        return self._subscription(tenant, started.run_id)

    async def subscribe(
        self, tenant: str, run_id: str, after: int = 0, pointer: str = "query:after"
    ) -> StreamSubscription:
        """Returns a run's stream after an index, which came at `pointer`. Raises 404 if there is no such run, 422 if
        the stream has no such index yet, and 410 if what follows the index is no longer kept.
        """
        description = await self.reader.find(tenant, run_id)
        outcome = await fetch_stream_outcome(self.client, tenant, run_id) if description.close_time else None
        if after or outcome:
            await self._check_index(build_workflow_id(tenant, run_id), after, outcome, pointer)
        if after:
            RESUMES.inc()
        return self._subscription(tenant, run_id, after, outcome)

    async def has_ended_at(self, tenant: str, run_id: str, index: int) -> bool:
        """Whether a run has ended, and a reader who had an end at this index has all of it: the run may have been
        retried since. Raises 404.
        """
        description = await self.reader.find(tenant, run_id)
        if description.close_time is None:
            return False
        if (await description.memo()).get(GENERATION_MEMO, 1) == 1:
            return True
        outcome = await fetch_stream_outcome(self.client, tenant, run_id)
        last = outcome.last_index or await self.hubs.log.last_index(build_workflow_id(tenant, run_id))
        return index >= last if outcome.last_index != 0 else index > RESET_STEP

    def _subscription(
        self, tenant: str, run_id: str, after: int = 0, outcome: RunOutcome | None = None
    ) -> StreamSubscription:
        return StreamSubscription(self.client, self.hubs, self.detached, tenant, run_id, after, outcome)

    async def _check_index(self, workflow_id: str, after: int, outcome: RunOutcome | None, pointer: str) -> None:
        last = max(await self.hubs.log.last_index(workflow_id), self.hubs.last_index(workflow_id))
        if outcome is None or outcome.last_index is None:
            highest = last + MAX_UNCONFIRMED  # the reader may have seen entries that a crash has lost since
        elif outcome.last_index:
            highest = outcome.last_index
            if last < highest:
                raise gone_problem(last)
        else:
            highest = RESET_STEP + 1  # the log is empty: see lines.py, _unlogged_lines
        if after > highest:
            raise invalid_field(pointer, f"there is no index {after}; the last index so far is {last}")


StreamOpenerDep = Annotated[StreamOpener, Depends(component("stream_opener"))]
