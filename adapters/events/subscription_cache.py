"""Cache of the active subscriptions: those of `sevenfold.toml`, and those that the API stores in a workflow."""

from collections.abc import Iterable, Mapping
from functools import partial

from temporalio.client import Client

from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.temporal.entity_memos import load_records
from sevenfold.adapters.temporal.shared_answers import SharedAnswers
from sevenfold.contracts.events.subscriptions import SUBSCRIPTION_MEMO_PREFIX, Subscription, registry_workflow_id

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
        self._cache = SharedAnswers(_TTL_SECONDS)

    async def list_for(self, tenant: str) -> list[Subscription]:
        """Returns a tenant's active subscriptions, by name. Raises RPCError if Temporal is down."""
        return await self._cache.get(tenant, partial(self._load_active, tenant))

    def is_active(self, tenant: str, subscription: Subscription) -> bool:
        """Whether the tenant may use the subscription's agent, which an administrator may have changed since."""
        allowed = self._access.latest.allowed_agents(tenant)
        return allowed is None or subscription.agent in allowed

    async def load_stored(self, tenant: str) -> Mapping[str, Subscription]:
        """Returns the subscriptions that the API stores, by name, uncached."""
        records = await load_records(
            self._client, registry_workflow_id(tenant), SUBSCRIPTION_MEMO_PREFIX, Subscription
        )
        return {one.name: one for one in records}

    def configured_for(self, tenant: str) -> Mapping[str, Subscription]:
        """Returns a tenant's subscriptions of `sevenfold.toml`, by name."""
        return self._configured.get(tenant, {})

    async def _load_active(self, tenant: str) -> list[Subscription]:
        present = {**await self.load_stored(tenant), **self.configured_for(tenant)}
        await self._access.load()
        return [present[name] for name in sorted(present) if self.is_active(tenant, present[name])]
