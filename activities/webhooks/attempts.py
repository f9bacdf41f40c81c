"""The activity that makes one delivery attempt."""

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.activities.heartbeats import heartbeat_periodically
from sevenfold.activities.identity import current_workflow_id
from sevenfold.activities.webhooks.targets import DeliveryTargets, TargetRefusedError
from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.encryption.sealing import SealError
from sevenfold.adapters.metrics.events import observe_attempt
from sevenfold.adapters.temporal.run_outcomes import await_outcome
from sevenfold.adapters.tracing import record
from sevenfold.adapters.webhooks.signatures import sign_headers
from sevenfold.contracts.identity import parse_public_id, parse_tenant
from sevenfold.contracts.runs.outcomes import update_body, webhook_body
from sevenfold.contracts.runs.run import RunResult
from sevenfold.contracts.tracing import Span, SpanKind, TraceContext
from sevenfold.contracts.webhooks.delivery import (
    AttemptInput,
    AttemptOutcome,
    AttemptResult,
    DeliveryAttempt,
    DeliverySubject,
    WebhookEvent,
)

# Receivers see by these what a delivery reports, and the order of a run's deliveries.
EVENT_HEADER, SEQUENCE_HEADER = "webhook-event", "webhook-sequence"

_GONE = "The run is older than the namespace's retention, so its outcome is no longer available."
_ERASED = "The tenant's data are being erased."


class Poster(Protocol):
    """Posts (implemented by `sevenfold.adapters.webhooks.posting.WebhookPoster`)."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> AttemptOutcome: ...


class WebhookAttempts:
    """Posts outcomes of runs, and updates on them. It reads outcomes from Temporal, so a delivery holds no copy."""

    def __init__(self, client: Client, poster: Poster, targets: DeliveryTargets, access: AccessDirectory) -> None:
        self._client = client
        self._poster = poster
        self._targets = targets
        self._access = access

    @activity.defn(name="attempt_delivery")
    async def attempt_delivery(self, attempt_input: AttemptInput) -> AttemptOutcome:
        """Posts an update now, and the run's outcome once the run is closed.

        A receiver's response is an outcome, never an exception. Temporal retries this activity only if its worker
        died, with the same `webhook-id`.
        """
        parent, started_at = TraceContext.parse(attempt_input.traceparent), time.time()
        context = parent.child() if parent is not None else None
        outcome = await self._attempt(attempt_input, context)
        if parent is not None and context is not None:
            _record_attempt(outcome, attempt_input, context, parent, started_at)
        observe_attempt(outcome.result, outcome.attempt.milliseconds / 1000 if outcome.attempt else 0.0)
        return outcome

    async def _attempt(self, attempt_input: AttemptInput, context: TraceContext | None) -> AttemptOutcome:
        run_workflow_id, subject = attempt_input.run_workflow_id, attempt_input.subject
        async with heartbeat_periodically():
            # The erasure cancels runs, and a cancelled run starts its delivery.
            if (await self._access.load()).is_erasing(parse_tenant(run_workflow_id)):
                return AttemptOutcome(result=AttemptResult.FINAL, attempt=None, reason=_ERASED)
            body = await self._build_body(run_workflow_id, subject)
            if body is None:
                return AttemptOutcome(result=AttemptResult.FINAL, attempt=None, reason=_GONE)
            try:
                target = await self._targets.resolve(attempt_input)
            except TargetRefusedError as error:
                return AttemptOutcome(result=AttemptResult.FINAL, attempt=None, reason=str(error))
            except SealError as error:
                return failed_before_post(str(error))
            signed = sign_headers(target.secrets, parse_public_id(current_workflow_id()), int(time.time()), body)
            traced = {} if context is None else {"traceparent": str(context)}
            outcome = await self._poster.post(target.url, {**signed, **_describe_subject(subject), **traced}, body)
        return outcome.model_copy(update={"is_degraded": target.is_degraded})

    async def _build_body(self, run_workflow_id: str, subject: DeliverySubject) -> bytes | None:
        run_id = parse_public_id(run_workflow_id)
        if subject.event is not WebhookEvent.COMPLETED:
            return _encode(update_body(run_id, subject))
        handle = self._client.get_workflow_handle(run_workflow_id, result_type=RunResult)
        try:
            return _encode(webhook_body(run_id, await await_outcome(handle)))
        except RPCError as failure:
            if failure.status != RPCStatusCode.NOT_FOUND:
                raise
            return None


def failed_before_post(reason: str) -> AttemptOutcome:
    """Returns the outcome of an attempt that could not post, and may later."""
    attempt = DeliveryAttempt(at=datetime.now(UTC), error=reason, milliseconds=0)
    return AttemptOutcome(result=AttemptResult.FAILED, attempt=attempt, reason=reason)


def _record_attempt(
    outcome: AttemptOutcome,
    attempt_input: AttemptInput,
    context: TraceContext,
    parent: TraceContext,
    started_at: float,
) -> None:
    status = outcome.attempt.status if outcome.attempt is not None else None
    attributes: dict[str, str | int | float | bool] = {
        "http.request.method": "POST",
        "server.address": attempt_input.webhook.host,
        "sevenfold.delivery.id": parse_public_id(current_workflow_id()),
        "sevenfold.webhook.event": attempt_input.subject.event,
        "sevenfold.webhook.outcome": outcome.result,
        **({} if status is None else {"http.response.status_code": status}),
    }
    is_delivered = outcome.result is AttemptResult.DELIVERED
    error = None if is_delivered else str(status or "no answer")
    record(Span("webhook", SpanKind.CLIENT, context, parent, started_at, time.time(), attributes, error))


def _describe_subject(subject: DeliverySubject) -> dict[str, str]:
    if subject.sequence is None:
        return {}
    return {EVENT_HEADER: subject.event, SEQUENCE_HEADER: str(subject.sequence)}


def _encode(payload: Mapping[str, Any]) -> bytes:
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
