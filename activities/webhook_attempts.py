"""The activity that makes one attempt to deliver."""

import asyncio
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol

from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.heartbeats import heartbeating
from activities.webhook_receivers import Receivers, Standing
from adapters.run_outcomes import end_of
from adapters.sealing import Sealer, SealError
from adapters.webhooks.signatures import signed_headers
from contracts.answers import told_webhook
from contracts.identity import public_id, tenant_of
from contracts.runs import RunResult
from contracts.webhooks import Attempt, AttemptOrder, AttemptOutcome, AttemptVerdict, delivery_of

_NO_KEY = (
    "This worker has no key to open the webhook's secret with. Set SEVENFOLD_SECRET_KEY, the same for every process."
)
_GONE = "The run is older than the retention: there is nothing left to deliver."
_PAUSED = (
    "The receiver is paused: it has failed every delivery for 12 hours or more. One in an hour is tried; once it "
    "takes that, deliveries go on. Have this one delivered again then."
)


class Poster(Protocol):
    """What posts: `adapters.webhooks.posting.WebhookPoster`."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> AttemptOutcome: ...


class WebhookAttempts:
    """Posts how runs ended. A client of Temporal has the runs' results, so none is copied into a delivery."""

    def __init__(self, client: Client, poster: Poster, sealer: Sealer | None, receivers: Receivers) -> None:
        self._client = client
        self._poster = poster
        self._sealer = sealer
        self._receivers = receivers

    @activity.defn
    async def attempt_delivery(self, order: AttemptOrder) -> AttemptOutcome:
        """Posts once the run is closed. What a receiver does is an outcome, never an error: Temporal makes another
        attempt of this activity only where its worker died, with the same `webhook-id`.
        """
        async with heartbeating():
            standing, body = await asyncio.gather(self._standing(order), self._body(order.run))
            if body is None:
                return AttemptOutcome(verdict=AttemptVerdict.FINAL, attempt=None, reason=_GONE)
            if standing is Standing.PAUSED:
                return AttemptOutcome(verdict=AttemptVerdict.FINAL, attempt=None, reason=_PAUSED)
            try:
                secrets = self._secrets(order)
            except SealError as error:
                return _not_made(str(error))
            headers = signed_headers(secrets, public_id(delivery_of(order.run, order.life)), int(time.time()), body)
            outcome = await self._poster.post(order.webhook.url, headers, body)
        return outcome.model_copy(update={"ailing": standing is Standing.AILING})

    async def _standing(self, order: AttemptOrder) -> Standing:
        if not order.first:
            return Standing.WELL
        standing = await self._receivers.standing(tenant_of(order.run), order.webhook.host)
        return Standing.AILING if standing is Standing.PAUSED and order.by_hand else standing

    async def _body(self, run: str) -> bytes | None:
        handle = self._client.get_workflow_handle(run, result_type=RunResult)
        try:
            told = told_webhook(public_id(run), await end_of(handle))
        except RPCError as failure:
            if failure.status != RPCStatusCode.NOT_FOUND:
                raise
            return None
        return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()

    def _secrets(self, order: AttemptOrder) -> list[str]:
        if self._sealer is None:
            raise SealError(_NO_KEY)
        secrets: list[str] = json.loads(self._sealer.unseal(order.webhook.sealed_secrets, context=order.run))
        return secrets


def _not_made(reason: str) -> AttemptOutcome:
    attempt = Attempt(at=datetime.now(UTC), error=reason, milliseconds=0)
    return AttemptOutcome(verdict=AttemptVerdict.FAILED, attempt=attempt, reason=reason)
