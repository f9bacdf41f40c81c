"""Reads and changes the subscriptions that the API stores: one workflow each."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta

import structlog
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.adapters.temporal.entity_memos import load_record
from sevenfold.adapters.temporal.search_attributes import keyword_attributes
from sevenfold.adapters.temporal.updates import await_update
from sevenfold.contracts.events import event_task_queue
from sevenfold.contracts.subscriptions import (
    SUBSCRIPTION_MEMO,
    SUBSCRIPTION_TYPE,
    Subscription,
    subscription_workflow_id,
)

log = structlog.get_logger(__name__)

# Without a worker an update waits.
_CHANGE_TIMEOUT = timedelta(seconds=10)

# How long a change waits until visibility shows it, and how often it looks.
_VISIBLE_SECONDS, _POLL_SECONDS = 5.0, 0.02

_PAGE = 500


class StoredSubscriptions:
    """The subscriptions of all tenants.

    Lists come from Temporal's visibility, which lags by a moment. So a change returns when visibility shows it; and
    one that this process knew and that a list lacks (it has just continued as new, or visibility lags) is read by its
    id, which never lags, before it counts as removed.
    """

    def __init__(self, client: Client, task_queue: str) -> None:
        self._client = client
        self._task_queue = event_task_queue(task_queue)
        self._known: defaultdict[str, frozenset[str]] = defaultdict(frozenset)

    async def list_for(self, tenant: str) -> Mapping[str, Subscription]:
        """Returns a tenant's subscriptions, by name. Raises RPCError."""
        query = f"WorkflowType = '{SUBSCRIPTION_TYPE}' AND Tenant = '{tenant}' AND ExecutionStatus = 'Running'"
        listed = [one async for one in self._client.list_workflows(query, page_size=_PAGE)]
        found = {one.name: one for one in await gather_bounded(_load, listed) if one is not None}
        for name in self._known[tenant] - found.keys():
            missing = await self.find(tenant, name)
            if missing is not None:
                found[name] = missing
        self._known[tenant] = frozenset(found)
        return found

    async def find(self, tenant: str, name: str) -> Subscription | None:
        """Returns a subscription as it is now; None if it does not exist. Raises RPCError."""
        try:
            execution = await self._handle(tenant, name).describe()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return None
        return await _load(execution) if execution.status is WorkflowExecutionStatus.RUNNING else None

    async def create(self, tenant: str, subscription: Subscription) -> bool:
        """Stores a new subscription. Returns False if there is one of its name. Needs no worker. Raises RPCError."""
        try:
            await self._client.start_workflow(
                SUBSCRIPTION_TYPE,
                subscription,
                id=subscription_workflow_id(tenant, subscription.name),
                task_queue=self._task_queue,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                memo={SUBSCRIPTION_MEMO: subscription},
                search_attributes=keyword_attributes(("Tenant",), (tenant,)),
                static_summary=f"{subscription.name}: {subscription.agent} · {subscription.task}",
            )
        except WorkflowAlreadyStartedError:
            return False
        await self._wait_until_visible(tenant, subscription.name, subscription)
        return True

    async def put(self, tenant: str, subscription: Subscription) -> bool:
        """Stores a subscription, in place of the one of its name if there is one. Returns True if it is new.

        Raises RPCError, and to replace one UpdateTimeoutError without a worker, and WorkflowUpdateFailedError if it
        is removed at the same moment.
        """
        if await self.create(tenant, subscription):
            return True
        await await_update(
            self._handle(tenant, subscription.name).execute_update("replace", subscription), _CHANGE_TIMEOUT
        )
        await self._wait_until_visible(tenant, subscription.name, subscription)
        return False

    async def remove(self, tenant: str, name: str) -> bool:
        """Removes a subscription. Returns False if there is none. Raises as `put` does."""
        if await self.find(tenant, name) is None:
            return False
        await await_update(self._handle(tenant, name).execute_update("remove"), _CHANGE_TIMEOUT)
        await self._wait_until_visible(tenant, name, None)
        return True

    async def _wait_until_visible(self, tenant: str, name: str, expected: Subscription | None) -> None:
        workflow_id = subscription_workflow_id(tenant, name)
        query = f"WorkflowId = '{workflow_id}' AND ExecutionStatus = 'Running'"
        deadline = time.monotonic() + _VISIBLE_SECONDS
        while time.monotonic() < deadline:
            listed = [await _load(one) async for one in self._client.list_workflows(query)]
            if listed == ([] if expected is None else [expected]):
                return
            await asyncio.sleep(_POLL_SECONDS)
        log.warning("a changed subscription is not visible yet", workflow=workflow_id)

    def _handle(self, tenant: str, name: str) -> WorkflowHandle[object, None]:
        return self._client.get_workflow_handle(subscription_workflow_id(tenant, name))


async def _load(execution: WorkflowExecution) -> Subscription | None:
    return await load_record(execution, Subscription, SUBSCRIPTION_MEMO)
