"""Finds out where an attempt posts to, and which secrets sign it."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from sevenfold.activities.webhooks.endpoint_health import EndpointHealthActivities, HealthState
from sevenfold.adapters.encryption.sealing import Sealer, SealError
from sevenfold.adapters.webhooks.endpoint_directory import EndpointDirectory
from sevenfold.adapters.webhooks.sealed_urls import unseal_url
from sevenfold.contracts.identity import parse_tenant
from sevenfold.contracts.webhooks.delivery import AttemptInput
from sevenfold.contracts.webhooks.endpoints import WebhookEndpoint, endpoint_sealing_context

_NO_KEY = (
    "This worker has no key to unseal the webhook's secret. Set SEVENFOLD_SECRET_KEY, the same in every process."
)
_PAUSED = (
    "The receiver is paused, because it has failed every delivery for 12 hours or more. One delivery an hour is "
    "attempted; when it succeeds, deliveries resume. Redeliver this one then."
)
_DELETED = "The endpoint was deleted."


class TargetRefusedError(Exception):
    """Nothing may be posted there, now or later. The message states the reason."""


@dataclass(frozen=True)
class DeliveryTarget:
    """Where to post, with the valid secrets, newest first. `is_degraded`: deliveries have failed recently."""

    url: str
    secrets: list[str]
    is_degraded: bool


class DeliveryTargets:
    """Resolves webhooks, for each attempt again, because an endpoint may change between two attempts."""

    def __init__(self, sealer: Sealer | None, health: EndpointHealthActivities, endpoints: EndpointDirectory) -> None:
        self._sealer = sealer
        self._health = health
        self._endpoints = endpoints

    async def resolve(self, attempt: AttemptInput) -> DeliveryTarget:
        """Raises TargetRefusedError, and SealError while this worker lacks the key of the secrets."""
        tenant = parse_tenant(attempt.run_workflow_id)
        if attempt.webhook.endpoint_id is None:
            return await self._resolve_url(tenant, attempt)
        return await self._resolve_endpoint(tenant, attempt.webhook.endpoint_id)

    def for_endpoint(self, tenant: str, endpoint: WebhookEndpoint) -> DeliveryTarget:
        """Returns the target of an endpoint, disabled or not. Raises SealError."""
        context = endpoint_sealing_context(tenant, endpoint.id)
        secrets = [self._unseal(one.sealed, context) for one in endpoint.valid_secrets(datetime.now(UTC))]
        url = unseal_url(self._require_sealer(), endpoint.sealed_url, owner=context)
        return DeliveryTarget(url, secrets, is_degraded=endpoint.health.failing_since is not None)

    async def _resolve_endpoint(self, tenant: str, endpoint_id: str) -> DeliveryTarget:
        endpoint = await self._endpoints.find(tenant, endpoint_id)
        if endpoint is None or endpoint.disabled is not None:
            # It may have been created or enabled a moment ago.
            endpoint = (await self._endpoints.load(tenant)).get(endpoint_id)
        if endpoint is None:
            raise TargetRefusedError(_DELETED)
        if endpoint.disabled is not None:
            raise TargetRefusedError(
                f"The endpoint {endpoint.name} is disabled. {endpoint.disabled.reason} Enable it, and redeliver then."
            )
        return self.for_endpoint(tenant, endpoint)

    async def _resolve_url(self, tenant: str, attempt: AttemptInput) -> DeliveryTarget:
        health = HealthState.HEALTHY
        if attempt.is_first:
            health = await self._health.check_health(tenant, attempt.webhook.host)
        if health is HealthState.PAUSED and not attempt.is_manual:
            raise TargetRefusedError(_PAUSED)
        secrets: list[str] = json.loads(self._unseal(attempt.webhook.sealed_secrets, attempt.run_workflow_id))
        url = unseal_url(self._require_sealer(), attempt.webhook.sealed_url, owner=attempt.run_workflow_id)
        return DeliveryTarget(url, secrets, is_degraded=health is not HealthState.HEALTHY)

    def _unseal(self, sealed: str, context: str) -> str:
        return self._require_sealer().unseal(sealed, context=context)

    def _require_sealer(self) -> Sealer:
        if self._sealer is None:
            raise SealError(_NO_KEY)
        return self._sealer
