"""Delivers a run's outcome, or an update on it, to its webhook, with retries."""

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import (
    RetryPolicy,
    SearchAttributeKey,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import ActivityError, ApplicationError, WorkflowAlreadyStartedError, is_cancelled_exception

from sevenfold.activities.webhooks.attempts import WebhookAttempts
from sevenfold.activities.webhooks.endpoint_health import EndpointHealthActivities
from sevenfold.adapters.temporal.search_attributes import delivery_search_attributes
from sevenfold.contracts import workflow_types
from sevenfold.contracts.identity import parse_public_id, parse_tenant
from sevenfold.contracts.webhooks.delivery import (
    DELIVERY_ATTRIBUTES,
    LOG_MEMO,
    SUBJECT_MEMO,
    AttemptInput,
    AttemptOutcome,
    AttemptResult,
    DeliveryAttempt,
    DeliveryInput,
    DeliveryLog,
    DeliveryState,
    EndpointReport,
    WebhookEvent,
)

_STATE = SearchAttributeKey.for_keyword(DELIVERY_ATTRIBUTES[0])

# Spreads the retries to receivers that failed at the same moment.
_JITTER = 0.1

# 15 s for the receiver; the rest for a run that is about to close and for a busy worker.
_ATTEMPT_TIMEOUT = timedelta(seconds=60)
_HEARTBEAT_TIMEOUT = timedelta(seconds=8)

# A delivery that is redelivered often keeps its latest attempts only.
_MAX_LOGGED_ATTEMPTS = 40


@workflow.defn(name=workflow_types.WEBHOOK_DELIVERY)
class WebhookDelivery:
    """Completes when the receiver accepts the delivery. Fails when the schedule is exhausted, and so becomes a dead
    letter.

    Delivery is at-least-once: receivers deduplicate by `webhook-id`.
    """

    @workflow.init
    def __init__(self, delivery: DeliveryInput) -> None:
        self._delivery = delivery
        self._log = DeliveryLog(attempts=delivery.previous_attempts)
        self._attempt_requested = False
        self._attempt_count = 0
        self._is_degraded = False

    @workflow.run
    async def run(self, delivery: DeliveryInput) -> DeliveryLog:
        """Returns the log of all attempts. Raises ApplicationError with the type `DeliveryExhausted`."""
        try:
            reason = await self._deliver()
        except (asyncio.CancelledError, ActivityError) as error:
            if is_cancelled_exception(error):
                self._publish_state(DeliveryState.CANCELLED, reason="An operator cancelled the delivery.")
            raise
        if reason is None:
            self._publish_state(DeliveryState.DELIVERED)
            return self._log
        self._publish_state(DeliveryState.EXHAUSTED, reason=reason)
        raise ApplicationError(reason, type="DeliveryExhausted", non_retryable=True)

    @workflow.signal(name="deliver_now", description="Makes an attempt now; the schedule continues after it.")
    def deliver_now(self) -> None:
        """Sent by `POST /webhooks/deliveries/{id}/redeliver`, or by hand."""
        self._attempt_requested = True

    async def _deliver(self) -> str | None:
        """Returns None when the receiver accepts the delivery, else the reason for giving up."""
        outcome: AttemptOutcome | None = None
        for pause in self._delivery.webhook.schedule:
            due = workflow.now() + _with_jitter(max(pause, outcome.retry_after if outcome else 0.0))
            is_scheduled = False
            while not is_scheduled:
                if outcome is not None:
                    self._publish_state(DeliveryState.RETRYING, next_attempt_at=due, reason=outcome.reason)
                is_scheduled = not await self._attempt_requested_before(due)
                outcome = await self._make_attempt(
                    is_manual=not is_scheduled or (self._attempt_count == 0 and self._delivery.is_manual)
                )
                if outcome.result is AttemptResult.DELIVERED:
                    return None
                if outcome.result is AttemptResult.FINAL:
                    return outcome.reason
                due = max(due, workflow.now() + timedelta(seconds=outcome.retry_after))
        assert outcome is not None, "a schedule has an attempt"  # noqa: S101
        return f"Every attempt of the schedule failed. Last failure: {outcome.reason}"

    async def _attempt_requested_before(self, due: datetime) -> bool:
        """Waits until `due`. Returns True if an attempt is requested earlier."""
        if not self._attempt_requested and (seconds := (due - workflow.now()).total_seconds()) > 0:
            with suppress(asyncio.TimeoutError):
                await workflow.wait_condition(
                    lambda: self._attempt_requested, timeout=seconds, timeout_summary="next attempt"
                )
        requested, self._attempt_requested = self._attempt_requested, False
        return requested

    async def _make_attempt(self, *, is_manual: bool) -> AttemptOutcome:
        self._attempt_count += 1
        webhook, run_workflow_id = self._delivery.webhook, self._delivery.run_workflow_id
        outcome = await workflow.execute_activity_method(
            WebhookAttempts.attempt_delivery,
            AttemptInput(
                run_workflow_id=run_workflow_id,
                webhook=webhook,
                subject=self._delivery.subject,
                is_first=self._attempt_count == 1,
                is_manual=is_manual,
                traceparent=self._delivery.traceparent,
            ),
            start_to_close_timeout=_ATTEMPT_TIMEOUT,
            heartbeat_timeout=_HEARTBEAT_TIMEOUT,
            # Temporal retries the activity only if its worker died, or if the payload store or Temporal was down.
            retry_policy=RetryPolicy(maximum_interval=timedelta(minutes=1)),
            summary=f"attempt {self._attempt_count}" + (" (manual)" if is_manual else ""),
        )
        if outcome.attempt is not None:
            made: DeliveryAttempt = outcome.attempt.model_copy(update={"is_manual": is_manual})
            attempts = [*self._log.attempts, made][-_MAX_LOGGED_ATTEMPTS:]
            self._log = DeliveryLog(attempts=attempts)
            failed = outcome.result is AttemptResult.FAILED
            # A single failure is not recorded: a third of all attempts may fail once.
            self._is_degraded = self._is_degraded or outcome.is_degraded or (failed and self._attempt_count > 1)
            if self._is_degraded and outcome.result is not AttemptResult.FINAL:
                await self._report_health(succeeded=not failed)
        return outcome

    async def _report_health(self, *, succeeded: bool) -> None:
        webhook = self._delivery.webhook
        report = EndpointReport(
            tenant=parse_tenant(self._delivery.run_workflow_id),
            host=webhook.host,
            succeeded=succeeded,
            endpoint_id=webhook.endpoint_id,
        )
        try:
            await workflow.execute_activity_method(
                EndpointHealthActivities.report_endpoint,
                report,
                start_to_close_timeout=timedelta(seconds=10),
                schedule_to_close_timeout=timedelta(minutes=10),
                summary="report the endpoint's health",
            )
        except ActivityError as error:
            # The health report must not fail a delivery. An accepted delivery is no longer cancelled.
            if is_cancelled_exception(error) and not succeeded:
                raise

    def _publish_state(
        self, state: DeliveryState, *, next_attempt_at: datetime | None = None, reason: str | None = None
    ) -> None:
        """Publishes the state to the search attributes, the memo and the details in the Temporal UI."""
        self._log = self._log.model_copy(update={"next_attempt_at": next_attempt_at, "reason": reason})
        workflow.upsert_search_attributes([_STATE.value_set(state)])
        workflow.upsert_memo({LOG_MEMO: self._log})
        lines = [f"**{state}** after {len(self._log.attempts)} attempts.", reason or ""]
        if next_attempt_at is not None:
            lines.append(f"Next attempt {next_attempt_at:%Y-%m-%d %H:%M:%S} UTC.")
        workflow.set_current_details("\n\n".join(filter(None, lines)))


def _with_jitter(seconds: float) -> timedelta:
    """Adds up to 10 % to the delay of the schedule or of the receiver's `Retry-After`, and never shortens it."""
    return timedelta(seconds=seconds * (1 + _JITTER * workflow.random().random()))


Delivery = workflow.ChildWorkflowHandle[WebhookDelivery, DeliveryLog]


async def start_delivery(delivery: DeliveryInput) -> Delivery | None:
    """Starts a delivery, which outlives the current workflow; returns None if it was started before. The first
    attempt to deliver an outcome waits until the run is closed.
    """
    run_workflow_id, webhook, event = delivery.run_workflow_id, delivery.webhook, delivery.subject.event
    what = "" if event is WebhookEvent.COMPLETED else f", {event}"
    # A run that was reset is delivered once.
    with suppress(WorkflowAlreadyStartedError):
        return await workflow.start_child_workflow(
            WebhookDelivery.run,
            delivery,
            id=delivery.workflow_id,
            task_queue=webhook.task_queue,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            search_attributes=delivery_search_attributes(parse_tenant(run_workflow_id), webhook, run_workflow_id),
            memo={LOG_MEMO: DeliveryLog(), SUBJECT_MEMO: delivery.subject},
            static_summary=f"{parse_public_id(run_workflow_id)}{what} to {webhook.host}",
            priority=workflow.info().priority,
        )
    return None
