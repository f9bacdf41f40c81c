"""Activities that erase a tenant. All are idempotent: a repeated one continues with what is left."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from temporalio import activity
from temporalio.api.enums.v1 import ArchivalState
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError

from sevenfold.activities.heartbeats import heartbeat_periodically
from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.access.snapshot import AccessSnapshot
from sevenfold.adapters.payloads.stores import expiring_stores
from sevenfold.adapters.temporal.tenant_executions import TenantExecutions
from sevenfold.contracts.access.tenant_registry import PutTenantInput, TenantRecord
from sevenfold.contracts.operations.erasure import (
    HistoryRemoval,
    KeyRemoval,
    Leftover,
    StopInput,
    StopResult,
    StoreRemoval,
    Survey,
    SurveyInput,
)
from sevenfold.contracts.runs.streams import StreamLog

_POLL_SECONDS = 1.0

# Temporal deletes an execution some 30 s after it was closed: when its queues have recorded that the tasks of the
# close are done. A pass ends after twice that time without a deletion.
_MAX_STALL_SECONDS = 60.0


class ErasureActivities:
    """Marks the tenant, and removes its executions, payloads, streams and keys."""

    def __init__(self, client: Client, access: AccessDirectory, streams: StreamLog) -> None:
        self._client = client
        self._access = access
        self._streams = streams

    @property
    def activities(self) -> list[Callable[..., Any]]:
        """All of them, for a worker."""
        return [
            self.mark_erasing,
            self.stop_executions,
            self.remove_histories,
            self.remove_stores,
            self.survey_tenant,
            self.remove_keys,
        ]

    @activity.defn(name="mark_erasing")
    async def mark_erasing(self, tenant: str) -> None:
        """Marks the tenant in the registry; within a second its keys are refused in every process.

        A tenant of the configuration, or one that was removed before, gets a record for as long as the erasure takes.
        """
        found = (await self._read()).find_tenant(tenant) or TenantRecord(name=tenant, created_at=datetime.now(UTC))
        await self._access.registry.put_tenant(PutTenantInput(tenant=found.model_copy(update={"is_erasing": True})))

    @activity.defn(name="stop_executions")
    async def stop_executions(self, stop: StopInput) -> StopResult:
        """Requests the cancellation of everything that is open, waits for its end until the deadline, and terminates
        what is still open then.
        """
        executions = TenantExecutions(self._client, stop.tenant)
        asked: set[str] = set()
        async with heartbeat_periodically(lambda: StopResult(cancelled=len(asked))):
            await executions.request_cancellations(asked)
            while await executions.is_any_open() and datetime.now(UTC) < stop.deadline:
                await asyncio.sleep(_POLL_SECONDS)
                await executions.request_cancellations(asked)  # Work in flight may have started more.
            return StopResult(cancelled=len(asked), terminated=await executions.terminate_open())

    @activity.defn(name="remove_histories")
    async def remove_histories(self, tenant: str) -> HistoryRemoval:
        """Deletes all executions that visibility lists, and waits until it lists none of them any more."""
        executions = TenantExecutions(self._client, tenant)
        removal = await _start_pass(executions)
        async with heartbeat_periodically(lambda: removal):
            refusal = await executions.delete_all()
            changed_at = time.monotonic()
            while removal.left and time.monotonic() - changed_at < _MAX_STALL_SECONDS:
                await asyncio.sleep(_POLL_SECONDS)
                left = await executions.count()
                if left < removal.left:
                    changed_at = time.monotonic()
                removal = removal.model_copy(update={"left": left})
        return removal.model_copy(update={"refusal": refusal})

    @activity.defn(name="remove_stores")
    async def remove_stores(self, tenant: str) -> StoreRemoval:
        """Removes the tenant's payloads from every store, and its streams from Redis."""
        async with heartbeat_periodically():
            stores = expiring_stores(self._client.data_converter)
            payloads = [await store.remove_tenant(tenant, self._client.namespace) for store in stores]
            return StoreRemoval(payloads=sum(payloads), streams=await self._streams.remove_tenant(tenant))

    @activity.defn(name="survey_tenant")
    async def survey_tenant(self, survey: SurveyInput) -> Survey:
        """Returns what is left of the tenant."""
        config = (
            await self._client.workflow_service.describe_namespace(
                DescribeNamespaceRequest(namespace=self._client.namespace)
            )
        ).config
        until = datetime.now(UTC) + config.workflow_execution_retention_ttl.ToTimedelta()
        archives = {config.history_archival_state, config.visibility_archival_state}
        executions = TenantExecutions(self._client, survey.tenant)
        async with heartbeat_periodically():
            own = await executions.count()
            calls, others = await executions.count_agent_workflows()
        left = [
            _leftover("histories", own, until, survey.refusal or "Temporal has not deleted them yet."),
            _leftover("workflows of agents", calls, None, _AGENT_WORKFLOWS),
            _leftover("workflows that agents started", others, None, _OTHER_WORKFLOWS),
            Leftover(what="record of this erasure", count=1, until=until, reason=_OWN_RECORD),
            Leftover(what="changes of the tenant and its keys", reason=_REGISTRY),
            Leftover(what="refused duplicates", reason=_DUPLICATES),
        ]
        if ArchivalState.ARCHIVAL_STATE_ENABLED in archives:
            left.append(Leftover(what="archived histories", reason=f"{_ARCHIVE} {config.history_archival_uri}"))
        return Survey(left=[one for one in left if one.count != 0])

    @activity.defn(name="remove_keys")
    async def remove_keys(self, tenant: str) -> KeyRemoval:
        """Removes the tenant's record and keys from the registry, and with the record the mark of the erasure."""
        snapshot = await self._read()
        removal = KeyRemoval(
            removed=sum(key.tenant == tenant for key in snapshot.stored.keys.values()),
            configured=sum(key.tenant == tenant for key in snapshot.configured.keys.values()),
        )
        if activity.info().heartbeat_details:  # Another worker may have removed them, and not reported it.
            removal = KeyRemoval.model_validate(activity.info().heartbeat_details[0])
        activity.heartbeat(removal)
        await self._access.registry.remove_tenant(tenant)
        return removal

    async def _read(self) -> AccessSnapshot:
        snapshot = await self._access.reload()
        if not snapshot.is_current:
            raise ApplicationError("The tenant registry cannot be read now.", type="AccessUnavailable")
        return snapshot


_AGENT_WORKFLOWS = (
    "Their workers have not ended them. Each ends at its run's deadline at the latest; repeat the erasure then, or "
    "wait for the retention."
)
_OTHER_WORKFLOWS = "Agents of the kind `workflow` started them on their own. They are not Sevenfold's to delete."
_OWN_RECORD = "It holds the tenant's name and these counts."
_REGISTRY = (
    "The history of the tenant registry holds the tenant's name and the names, scopes and hashes of keys that were "
    "created over the API. It goes with the retention after the registry's next continue-as-new."
)
_DUPLICATES = (
    "A start that Temporal refused because its id exists, such as a repeated Idempotency-Key or event, leaves its "
    "input in the database. No API finds it; Temporal's history scanner removes it (worker.historyScannerDataMinAge, "
    "60 days by default)."
)
_ARCHIVE = "The namespace archives histories, and Temporal does not delete from the archive. Delete them at"


def _leftover(what: str, count: int, until: datetime | None, reason: str) -> Leftover:
    return Leftover(what=what, count=count, until=until, reason=reason)


async def _start_pass(executions: TenantExecutions) -> HistoryRemoval:
    """Returns the count at the start of this pass, which an attempt before may have recorded."""
    left = await executions.count()
    recorded = activity.info().heartbeat_details
    found = HistoryRemoval.model_validate(recorded[0]).found if recorded else left
    return HistoryRemoval(found=max(found, left), left=left)
