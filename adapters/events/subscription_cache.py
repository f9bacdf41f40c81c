"""Cache of the active subscriptions: those of `sevenfold.toml`, and those that the API stores in a workflow."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from functools import partial

import structlog
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.encryption.key_ring import DecryptionError
from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.adapters.temporal.encoded import memo_names
from sevenfold.contracts.subscriptions import (
    SUBSCRIPTION_MEMO_PREFIX,
    RegistryState,
    Subscription,
    registry_workflow_id,
)

log = structlog.get_logger(__name__)

# Changes take effect everywhere within a second. Without events, nothing is read.
_TTL_SECONDS = 0.5


class SubscriptionCache:
    """The subscriptions as one process sees them, at most 0.5 s old. `configured`: those of `sevenfold.toml`, by
    tenant.
    """

    def __init__(
        self, client: Client, access: AccessDirectory, configured: Mapping[str, Iterable[Subscription]]
    ) -> None:
        self._access = access
        self._configured = {tenant: {one.name: one for one in found} for tenant, found in configured.items()}
        self._client = client
        self._cache: dict[str, tuple[float, list[Subscription]]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def list_for(self, tenant: str) -> list[Subscription]:
        """Returns a tenant's active subscriptions, by name. Raises RPCError if Temporal is down."""
        async with self._locks.setdefault(tenant, asyncio.Lock()):
            read_at, subscriptions = self._cache.get(tenant, (-_TTL_SECONDS, []))
            if time.monotonic() - read_at < _TTL_SECONDS:
                return subscriptions
            started_at = time.monotonic()
            present = {**(await self.load_registry(tenant)).subscriptions, **self.configured_for(tenant)}
            await self._access.load()
            subscriptions = [present[name] for name in sorted(present) if self.is_active(tenant, present[name])]
            self._cache[tenant] = (started_at, subscriptions)
            return subscriptions

    def is_active(self, tenant: str, subscription: Subscription) -> bool:
        """Whether the tenant may use the subscription's agent, which an administrator may have changed since."""
        allowed = self._access.latest.allowed_agents(tenant)
        return allowed is None or subscription.agent in allowed

    async def load_registry(self, tenant: str) -> RegistryState:
        """Returns the subscriptions that the API stores, uncached."""
        try:
            description = await self._client.get_workflow_handle(registry_workflow_id(tenant)).describe()
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            return RegistryState()
        if description.status is not WorkflowExecutionStatus.RUNNING:
            return RegistryState()
        names = [name for name in memo_names(description) if _is_subscription_memo(name)]
        found = await gather_bounded(partial(_load_subscription, description), names)
        return RegistryState(subscriptions={one.name: one for one in found if one is not None})

    def configured_for(self, tenant: str) -> Mapping[str, Subscription]:
        """Returns a tenant's subscriptions of `sevenfold.toml`, by name."""
        return self._configured.get(tenant, {})


def _is_subscription_memo(memo: str) -> bool:
    return memo.startswith(SUBSCRIPTION_MEMO_PREFIX)


async def _load_subscription(description: WorkflowExecutionDescription, memo: str) -> Subscription | None:
    """Returns a subscription; None if it was removed or cannot be decoded, which must not affect the others.

    Raises DecryptionError if its key is missing here: without it, events would get no reactions, for good.
    """
    try:
        return await description.memo_value(memo, None, type_hint=Subscription)
    except DecryptionError:
        raise
    except Exception as error:
        log.error("a subscription cannot be decoded and is ignored", memo=memo, error=type(error).__name__)
        return None
