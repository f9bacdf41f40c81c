"""The subscriptions that hold now: those of `sevenfold.toml`, and those that the API keeps in a workflow."""

import asyncio
import time
from collections.abc import Iterable
from functools import partial

import structlog
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.contracts.identity import DEFAULT_TENANT
from sevenfold.contracts.subscriptions import (
    SUBSCRIPTION_MEMO_PREFIX,
    RegistryState,
    Subscription,
    registry_workflow_id,
)

log = structlog.get_logger(__name__)

# A change acts everywhere within a second; while no event comes in, nobody asks.
_TTL_SECONDS = 0.5


class SubscriptionCache:
    """One process's view, at most half a second old."""

    def __init__(self, client: Client, configured: Iterable[Subscription]) -> None:
        self.configured = {subscription.name: subscription for subscription in configured}
        self._client = client
        self._cache: dict[str, tuple[float, list[Subscription]]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def list_for(self, tenant: str) -> list[Subscription]:
        """A tenant's subscriptions in the order of their names. Raises RPCError when Temporal is away."""
        async with self._locks.setdefault(tenant, asyncio.Lock()):
            read_at, subscriptions = self._cache.get(tenant, (-_TTL_SECONDS, []))
            if time.monotonic() - read_at < _TTL_SECONDS:
                return subscriptions
            started_at = time.monotonic()
            present = {**(await self.load_registry(tenant)).subscriptions, **self._configured_for(tenant)}
            subscriptions = [present[name] for name in sorted(present)]
            self._cache[tenant] = (started_at, subscriptions)
            return subscriptions

    async def load_registry(self, tenant: str) -> RegistryState:
        """Those that the API keeps, as they are this moment."""
        try:
            description = await self._client.get_workflow_handle(registry_workflow_id(tenant)).describe()
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            return RegistryState()
        if description.status is not WorkflowExecutionStatus.RUNNING:
            return RegistryState()
        names = [
            key
            for key in description.raw_description.workflow_execution_info.memo.fields
            if _is_subscription_memo(key)
        ]
        found = await gather_bounded(partial(_load_subscription, description), names)
        return RegistryState(subscriptions={one.name: one for one in found if one is not None})

    def _configured_for(self, tenant: str) -> dict[str, Subscription]:
        return self.configured if tenant == DEFAULT_TENANT else {}


def _is_subscription_memo(memo: str) -> bool:
    return memo.startswith(SUBSCRIPTION_MEMO_PREFIX)


async def _load_subscription(description: WorkflowExecutionDescription, memo: str) -> Subscription | None:
    """One of them; None for one that was removed, or that cannot be read: it must not hold up the others."""
    try:
        return await description.memo_value(memo, None, type_hint=Subscription)
    except Exception as error:
        log.error("a subscription cannot be read, and does not hold", memo=memo, error=repr(error)[:500])
        return None
