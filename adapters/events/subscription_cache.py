"""Cache of the active subscriptions: those of `sevenfold.toml`, and those that the API stores."""

from collections.abc import Iterable, Mapping
from functools import partial

from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.events.stored_subscriptions import StoredSubscriptions
from sevenfold.adapters.temporal.shared_answers import SharedAnswers
from sevenfold.contracts.subscriptions import Subscription

# Changes take effect everywhere within a second. Without events, nothing is read.
_TTL_SECONDS = 0.5


class SubscriptionCache:
    """Subscriptions by tenant, at most 0.5 s old. Configured ones take precedence over stored ones of the same
    name.
    """

    def __init__(
        self, stored: StoredSubscriptions, access: AccessDirectory, configured: Mapping[str, Iterable[Subscription]]
    ) -> None:
        self.access = access
        self.stored = stored
        self._configured = {tenant: {one.name: one for one in found} for tenant, found in configured.items()}
        self._cache = SharedAnswers(_TTL_SECONDS)

    async def list_for(self, tenant: str) -> list[Subscription]:
        """Returns a tenant's active subscriptions, by name. Raises RPCError if Temporal is down."""
        return await self._cache.get(tenant, partial(self._load_active, tenant))

    def is_active(self, tenant: str, subscription: Subscription) -> bool:
        """Whether the tenant may use the subscription's agent, which an administrator may have changed since."""
        allowed = self.access.latest.allowed_agents(tenant)
        return allowed is None or subscription.agent in allowed

    def configured_for(self, tenant: str) -> Mapping[str, Subscription]:
        """Returns a tenant's subscriptions of `sevenfold.toml`, by name."""
        return self._configured.get(tenant, {})

    async def _load_active(self, tenant: str) -> list[Subscription]:
        present = {**await self.stored.list_for(tenant), **self.configured_for(tenant)}
        await self.access.load()
        return [present[name] for name in sorted(present) if self.is_active(tenant, present[name])]
