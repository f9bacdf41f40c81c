"""Keeps subscriptions: the API's in the workflow `SubscriptionRegistry`, the configuration's in `sevenfold.toml`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio.client import Client, WithStartWorkflowOperation, WorkflowUpdateFailedError
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.encryption.sealing import SealError
from sevenfold.adapters.events.subscription_cache import SubscriptionCache
from sevenfold.adapters.events.webhook_secrets import seal_webhook, unseal_webhook_url
from sevenfold.adapters.quotas.exceeded import QuotaExceededError
from sevenfold.adapters.temporal.updates import await_update
from sevenfold.adapters.webhooks.sealed_urls import redact_url
from sevenfold.api.http.problems import ProblemError, ProblemType, not_found
from sevenfold.api.runs.agents import AgentCatalog
from sevenfold.api.webhooks.requests import WebhookTerms
from sevenfold.contracts import workflow_types
from sevenfold.contracts.access.quotas import QuotaName, QuotaOwner
from sevenfold.contracts.agents.circuits import control_task_queue
from sevenfold.contracts.events.subscriptions import (
    SUBSCRIPTIONS_OVER_QUOTA,
    PutSubscriptionInput,
    Subscription,
    SubscriptionBody,
    SubscriptionQuota,
    SubscriptionRegistryState,
    SubscriptionWebhook,
    build_subscription,
    registry_workflow_id,
)

# Without a worker an update waits.
_CHANGE_TIMEOUT = timedelta(seconds=10)

# A place is freed only when a subscription is deleted.
_QUOTA_RETRY_SECONDS = 60.0


@dataclass(frozen=True)
class SubscriptionStore:
    """Reads and changes subscriptions."""

    client: Client
    task_queue: str
    access: AccessDirectory
    cache: SubscriptionCache
    agents: AgentCatalog
    webhooks: WebhookTerms

    def configured_for(self, tenant: str) -> Mapping[str, Subscription]:
        """Returns a tenant's subscriptions of `sevenfold.toml`, by name. The API cannot change them."""
        return self.cache.configured_for(tenant)

    async def load_stored(self, tenant: str) -> Mapping[str, Subscription]:
        """Returns the API's subscriptions as they are now, by name."""
        return await self.cache.load_stored(tenant)

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

    async def put(self, tenant: str, change: PutSubscriptionInput, key_id: str | None = None) -> bool:
        """Stores a subscription, by a key; returns whether its name was new. Raises 409 if the registry refuses it,
        and QuotaExceededError.
        """
        registry: WithStartWorkflowOperation[Any, None] = WithStartWorkflowOperation(
            workflow_types.SUBSCRIPTION_REGISTRY,
            SubscriptionRegistryState(),
            id=registry_workflow_id(tenant),
            task_queue=control_task_queue(self.task_queue),
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary="the API's subscriptions",
        )
        owners = await self._find_owners(tenant, key_id)
        lineage = self.access.latest.find_lineage(key_id) if key_id else None
        limits = [SubscriptionQuota(limit=one.quotas.subscriptions or 0, key_id=one.key_id) for one in owners]
        subscription = change.subscription.model_copy(update={"key_id": lineage})
        change = change.model_copy(update={"subscription": subscription, "quotas": limits})
        update = self.client.execute_update_with_start_workflow(
            "put", change, start_workflow_operation=registry, result_type=bool
        )
        try:
            return bool(await await_update(update, _CHANGE_TIMEOUT))
        except WorkflowUpdateFailedError as error:
            cause = error.cause
            if not isinstance(cause, ApplicationError) or cause.type != SUBSCRIPTIONS_OVER_QUOTA:
                raise
            owner = owners[cause.details[0]]
            limit = owner.quotas.subscriptions or 0
            raise QuotaExceededError(
                owner, QuotaName.SUBSCRIPTIONS, limit, cause.message, retry_after=_QUOTA_RETRY_SECONDS
            ) from None

    async def _find_owners(self, tenant: str, key_id: str | None) -> list[QuotaOwner]:
        """Returns the tenant and the key, if they have a quota of subscriptions."""
        owners = (await self.access.load()).quota_owners(tenant, key_id)
        return [owner for owner in owners if owner.quotas.subscriptions is not None]

    async def remove(self, tenant: str, name: str) -> None:
        """Removes a subscription. Raises 404 if there is none, and 409 if it is defined in sevenfold.toml."""
        self._check_name_is_free(tenant, name)
        handle = self.client.get_workflow_handle(registry_workflow_id(tenant))
        try:
            await await_update(handle.execute_update("remove", name), _CHANGE_TIMEOUT)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            raise not_found(f"The subscription {name}") from None

    def _check_name_is_free(self, tenant: str, name: str) -> None:
        if name in self.configured_for(tenant):
            detail = f"{name} is defined in sevenfold.toml. Change it there, or use another name."
            raise ProblemError(ProblemType.SUBSCRIPTION_FIXED, detail)
