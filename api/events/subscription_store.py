"""Keeps subscriptions: the API's in workflows, the configuration's in `sevenfold.toml`."""

from collections.abc import Mapping
from dataclasses import dataclass

from sevenfold.adapters.events.stored_subscriptions import StoredSubscriptions
from sevenfold.adapters.events.subscription_cache import SubscriptionCache
from sevenfold.adapters.events.webhook_secrets import seal_webhook, unseal_webhook_url
from sevenfold.adapters.quotas.exceeded import QuotaExceededError
from sevenfold.adapters.webhooks.sealed_urls import redact_url
from sevenfold.adapters.webhooks.sealing import SealError
from sevenfold.api.http.problems import ProblemError, ProblemType, not_found
from sevenfold.api.runs.agents import AgentCatalog
from sevenfold.api.webhooks.requests import WebhookTerms
from sevenfold.contracts.quotas import QuotaName
from sevenfold.contracts.subscriptions import (
    MAX_STORED_BYTES,
    Subscription,
    SubscriptionBody,
    SubscriptionWebhook,
    build_subscription,
)

# Nothing frees a place by itself.
_QUOTA_RETRY_SECONDS = 60.0


@dataclass(frozen=True)
class SubscriptionStore:
    """Reads and changes subscriptions."""

    stored: StoredSubscriptions
    cache: SubscriptionCache
    agents: AgentCatalog
    webhooks: WebhookTerms

    def configured_for(self, tenant: str) -> Mapping[str, Subscription]:
        """Returns a tenant's subscriptions of `sevenfold.toml`, by name. The API cannot change them."""
        return self.cache.configured_for(tenant)

    async def load_stored(self, tenant: str) -> Mapping[str, Subscription]:
        """Returns the API's subscriptions, by name."""
        return await self.stored.list_for(tenant)

    async def list_all(self, tenant: str) -> list[Subscription]:
        """Returns all subscriptions of a tenant, at most as old as the cache permits."""
        return await self.cache.list_for(tenant)

    async def name_endpoints(self, tenant: str) -> Mapping[str, str]:
        """Returns the names of the tenant's stored webhook endpoints, by id."""
        return {one.id: one.name for one in (await self.webhooks.endpoints.list_for(tenant)).values()}

    async def build(self, tenant: str, body: SubscriptionBody, name: str) -> Subscription:
        """Builds a subscription from a request. Raises 409 if the configuration has its name, and 422 if its agent or
        webhook is invalid.
        """
        self._check_name_is_free(tenant, name)
        agent = self.agents.resolve(tenant, body.agent)
        if body.webhook_endpoint is not None:
            endpoint = await self.webhooks.find_endpoint(
                tenant, body.webhook_endpoint, agent, body.webhook_url, body.webhook_secret
            )
            stored = SubscriptionWebhook(host=endpoint.host, endpoint_id=endpoint.id)
            return build_subscription(body, name, agent, stored)
        checked = self.webhooks.check(body.webhook_url, body.webhook_secret)
        if checked is None:
            return build_subscription(body, name, agent, None)
        secret = checked.secret.get_secret_value()
        webhook = seal_webhook(checked.sealer, tenant, name, url=checked.url, host=checked.host, secret=secret)
        return build_subscription(body, name, agent, webhook)

    def show_webhook_url(self, tenant: str, subscription: Subscription) -> str | None:
        """Returns the URL of its webhook without query; of a URL that cannot be unsealed here, the host only."""
        webhook, sealer = subscription.webhook, self.webhooks.sealer
        if webhook is None or webhook.endpoint_id is not None:
            return None
        try:
            if sealer is not None:
                return redact_url(unseal_webhook_url(sealer, tenant, subscription.name, webhook))
        except SealError:
            pass
        return f"https://{webhook.host}/***"

    async def create(self, tenant: str, subscription: Subscription) -> None:
        """Stores a new subscription. Raises 409 if there is one of its name or too many, and QuotaExceededError."""
        self._check_name_is_free(tenant, subscription.name)
        await self._check_limits(tenant, subscription)
        if not await self.stored.create(tenant, subscription):
            raise ProblemError(
                ProblemType.SUBSCRIPTION_EXISTS,
                f"Subscription {subscription.name} exists already. Change it with PUT.",
            )

    async def put(self, tenant: str, subscription: Subscription) -> bool:
        """Stores a subscription, and returns True if it is new. Raises 409 if it stands in the configuration or if
        there are too many, and QuotaExceededError.
        """
        self._check_name_is_free(tenant, subscription.name)
        await self._check_limits(tenant, subscription)
        return await self.stored.put(tenant, subscription)

    async def remove(self, tenant: str, name: str) -> None:
        """Removes a subscription. Raises 404 if there is none, and 409 if it stands in the configuration."""
        self._check_name_is_free(tenant, name)
        if not await self.stored.remove(tenant, name):
            raise not_found(f"The subscription {name}")

    async def _check_limits(self, tenant: str, subscription: Subscription) -> None:
        others = {**await self.stored.list_for(tenant)}
        is_new = others.pop(subscription.name, None) is None
        size = sum(len(one.model_dump_json(exclude_none=True)) for one in (*others.values(), subscription))
        if size > MAX_STORED_BYTES:
            raise ProblemError(
                ProblemType.SUBSCRIPTIONS_FULL,
                f"The subscriptions of a tenant are limited to {MAX_STORED_BYTES:,} bytes of JSON; with this one "
                f"they have {size:,}. Remove some, or move some to sevenfold.toml.",
            )
        for owner in (await self.cache.access.load()).quota_owners(tenant, None):
            limit = owner.quotas.subscriptions
            if limit is not None and is_new and len(others) >= limit:
                raise QuotaExceededError(
                    owner,
                    QuotaName.SUBSCRIPTIONS,
                    limit,
                    f"The tenant may have {limit:,} subscriptions and has {len(others):,}. Delete one first.",
                    retry_after=_QUOTA_RETRY_SECONDS,
                )

    def _check_name_is_free(self, tenant: str, name: str) -> None:
        if name in self.configured_for(tenant):
            detail = f"{name} stands in the gateway's sevenfold.toml. Change it there, or use another name."
            raise ProblemError(ProblemType.SUBSCRIPTION_FIXED, detail)
