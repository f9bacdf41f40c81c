"""Erases a tenant: stops its work, and removes its histories, payloads, streams, subscriptions and keys."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy

from sevenfold.activities.maintenance.erasure import ErasureActivities
from sevenfold.contracts import workflow_types
from sevenfold.contracts.operations.erasure import (
    ERASURE_MEMO,
    ErasureInput,
    ErasurePhase,
    ErasureProgress,
    HistoryRemoval,
    StopInput,
    SurveyInput,
)

# Every process refuses the tenant's keys a second after the mark; one more for requests that were just accepted.
_REFUSED_AFTER = timedelta(seconds=2)

# Work in flight may start more, and visibility lags: histories count as removed when two listings in a row, this far
# apart, are empty.
_LISTING_INTERVAL = timedelta(seconds=3)
_EMPTY_LISTINGS = 2

# A pass without progress takes a minute. What is left after these is reported instead.
_MAX_STALLED_PASSES = 5
_MAX_PASSES = 100

_HEARTBEAT_TIMEOUT = timedelta(seconds=10)

Result = TypeVar("Result")


@workflow.defn(name=workflow_types.TENANT_ERASURE)
class TenantErasure:
    """One at a time per tenant, by its workflow id. Its steps are retried until they succeed: an erasure that gave up
    would leave the tenant marked. Its history has a few events per step, however much there is to erase.
    """

    @workflow.init
    def __init__(self, erasure: ErasureInput) -> None:
        self._tenant = erasure.tenant
        self._progress = ErasureProgress(phase=ErasurePhase.CANCELLING, requested_at=erasure.requested_at)

    @workflow.run
    async def run(self, erasure: ErasureInput) -> ErasureProgress:
        """Returns what was removed and what is left."""
        await self._stop_work(timedelta(seconds=erasure.grace_seconds))
        self._report(phase=ErasurePhase.REMOVING_HISTORIES)
        refusal = await self._remove_histories()
        self._report(phase=ErasurePhase.REMOVING_PAYLOADS)
        stores = await self._execute(ErasureActivities.remove_stores, self._tenant, timedelta(hours=6))
        survey_input = SurveyInput(tenant=self._tenant, refusal=refusal)
        survey = await self._execute(ErasureActivities.survey_tenant, survey_input, timedelta(minutes=10))
        self._report(
            phase=ErasurePhase.REMOVING_KEYS,
            removed_payloads=stores.payloads,
            removed_streams=stores.streams,
            left=survey.left,
        )
        # Last, because it ends the mark: what the tenant stores from now on is new.
        keys = await self._execute(ErasureActivities.remove_keys, self._tenant, timedelta(minutes=1))
        self._report(
            phase=ErasurePhase.DONE,
            removed_keys=keys.removed,
            configured_keys=keys.configured,
            ended_at=workflow.now(),
        )
        return self._progress

    async def _stop_work(self, grace: timedelta) -> None:
        self._set_details()
        await self._execute(ErasureActivities.mark_erasing, self._tenant, timedelta(minutes=1))
        await workflow.sleep(_REFUSED_AFTER)
        stop_input = StopInput(tenant=self._tenant, deadline=workflow.now() + grace)
        stopped = await self._execute(ErasureActivities.stop_executions, stop_input, timedelta(hours=6))
        self._report(cancelled=stopped.cancelled, terminated=stopped.terminated)

    async def _remove_histories(self) -> str | None:
        """Returns why Temporal refuses to delete some, if it does."""
        empty, stalled = 0, 0
        removal: HistoryRemoval | None = None
        for _ in range(_MAX_PASSES):
            removal = await self._execute(ErasureActivities.remove_histories, self._tenant, timedelta(hours=12))
            self._report(removed_histories=self._progress.removed_histories + removal.removed)
            empty = empty + 1 if removal.found == 0 else 0
            stalled = stalled + 1 if removal.found and not removal.removed else 0
            if empty == _EMPTY_LISTINGS or stalled == _MAX_STALLED_PASSES:
                break
            await workflow.sleep(_LISTING_INTERVAL)
        return removal.refusal if removal else None

    async def _execute(
        self, method: Callable[[ErasureActivities, Any], Awaitable[Result]], argument: object, timeout: timedelta
    ) -> Result:
        return await workflow.execute_activity_method(
            method,
            argument,
            start_to_close_timeout=timeout,
            heartbeat_timeout=_HEARTBEAT_TIMEOUT,
            retry_policy=RetryPolicy(maximum_interval=timedelta(seconds=30)),
            summary=self._progress.phase.value,
        )

    def _report(self, **changes: object) -> None:
        """Publishes the progress to the memo and to the Temporal UI."""
        self._progress = self._progress.model_copy(update=changes)
        workflow.upsert_memo({ERASURE_MEMO: self._progress})
        self._set_details()

    def _set_details(self) -> None:
        progress = self._progress
        workflow.set_current_details(
            f"Tenant `{self._tenant}`: **{progress.phase}**; {progress.cancelled} cancelled, {progress.terminated} "
            f"terminated, {progress.removed_histories} histories removed."
        )
