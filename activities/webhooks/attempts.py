"""The activity that makes one delivery attempt."""

import asyncio
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol

from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.activities.heartbeats import heartbeat_periodically
from sevenfold.activities.webhooks.endpoint_health import EndpointHealthActivities, HealthState
from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.temporal.run_outcomes import await_outcome
from sevenfold.adapters.webhooks.sealed_urls import unseal_url
from sevenfold.adapters.webhooks.sealing import Sealer, SealError
from sevenfold.adapters.webhooks.signatures import sign_headers
from sevenfold.contracts.answers import webhook_body
from sevenfold.contracts.identity import parse_public_id, parse_tenant
from sevenfold.contracts.runs import RunResult
from sevenfold.contracts.webhooks import (
    AttemptInput,
    AttemptOutcome,
    AttemptResult,
    DeliveryAttempt,
    delivery_workflow_id,
)

_NO_KEY = (
    "This worker has no key to unseal the webhook's secret. Set SEVENFOLD_SECRET_KEY, the same in every process."
)
_GONE = "The run is older than the namespace's retention, so its outcome is no longer available."
_ERASED = "The tenant's data are being erased."
_PAUSED = (
    "The receiver is paused, because it has failed every delivery for 12 hours or more. One delivery an hour is "
    "attempted; when it succeeds, deliveries resume. Redeliver this one then."
)


class Poster(Protocol):
    """Posts (implemented by `sevenfold.adapters.webhooks.posting.WebhookPoster`)."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> AttemptOutcome: ...


class WebhookAttempts:
    """Posts the outcomes of runs. It reads them from Temporal, so a delivery holds no copy."""

    def __init__(
        self,
        client: Client,
        poster: Poster,
        sealer: Sealer | None,
        endpoints: EndpointHealthActivities,
        access: AccessDirectory,
    ) -> None:
        self._client = client
        self._poster = poster
        self._sealer = sealer
        self._endpoints = endpoints
        self._access = access

    @activity.defn(name="attempt_delivery")
    async def attempt_delivery(self, attempt_input: AttemptInput) -> AttemptOutcome:
        """Posts the run's outcome once the run is closed.

        A receiver's response is an outcome, never an exception. Temporal retries this activity only if its worker
        died, with the same `webhook-id`.
        """
        async with heartbeat_periodically():
            # The erasure cancels runs, and a cancelled run starts its delivery.
            if (await self._access.load()).is_erasing(parse_tenant(attempt_input.run_workflow_id)):
                return AttemptOutcome(result=AttemptResult.FINAL, attempt=None, reason=_ERASED)
            health, body = await asyncio.gather(
                self._check_health(attempt_input), self._build_body(attempt_input.run_workflow_id)
            )
            if body is None:
                return AttemptOutcome(result=AttemptResult.FINAL, attempt=None, reason=_GONE)
            if health is HealthState.PAUSED:
                return AttemptOutcome(result=AttemptResult.FINAL, attempt=None, reason=_PAUSED)
            try:
                secrets, url = self._unseal_secrets(attempt_input), self._unseal_url(attempt_input)
            except SealError as error:
                return _failed_before_post(str(error))
            headers = sign_headers(
                secrets,
                parse_public_id(delivery_workflow_id(attempt_input.run_workflow_id, attempt_input.generation)),
                int(time.time()),
                body,
            )
            outcome = await self._poster.post(url, headers, body)
        return outcome.model_copy(update={"is_degraded": health is HealthState.DEGRADED})

    async def _check_health(self, attempt_input: AttemptInput) -> HealthState:
        if not attempt_input.is_first:
            return HealthState.HEALTHY
        health = await self._endpoints.check_health(
            parse_tenant(attempt_input.run_workflow_id), attempt_input.webhook.host
        )
        return HealthState.DEGRADED if health is HealthState.PAUSED and attempt_input.is_manual else health

    async def _build_body(self, run_workflow_id: str) -> bytes | None:
        handle = self._client.get_workflow_handle(run_workflow_id, result_type=RunResult)
        try:
            payload = webhook_body(parse_public_id(run_workflow_id), await await_outcome(handle))
        except RPCError as failure:
            if failure.status != RPCStatusCode.NOT_FOUND:
                raise
            return None
        return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()

    def _unseal_secrets(self, attempt_input: AttemptInput) -> list[str]:
        if self._sealer is None:
            raise SealError(_NO_KEY)
        secrets: list[str] = json.loads(
            self._sealer.unseal(attempt_input.webhook.sealed_secrets, context=attempt_input.run_workflow_id)
        )
        return secrets

    def _unseal_url(self, attempt_input: AttemptInput) -> str:
        webhook = attempt_input.webhook
        if webhook.sealed_url is None:
            return webhook.url
        if self._sealer is None:
            raise SealError(_NO_KEY)
        return unseal_url(self._sealer, webhook.sealed_url, owner=attempt_input.run_workflow_id)


def _failed_before_post(reason: str) -> AttemptOutcome:
    attempt = DeliveryAttempt(at=datetime.now(UTC), error=reason, milliseconds=0)
    return AttemptOutcome(result=AttemptResult.FAILED, attempt=attempt, reason=reason)
