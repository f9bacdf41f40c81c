"""The delivery of a run's end to its webhook, for as long as that takes."""

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import (
    RetryPolicy,
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import ActivityError, ApplicationError, WorkflowAlreadyStartedError, is_cancelled_exception

from activities.webhook_attempts import WebhookAttempts
from activities.webhook_receivers import Receivers
from contracts.identity import public_id, tenant_of
from contracts.webhooks import (
    DELIVERY_ATTRIBUTES,
    LOG,
    Attempt,
    AttemptOrder,
    AttemptOutcome,
    AttemptVerdict,
    Delivery,
    DeliveryLog,
    DeliveryState,
    ReceiverNews,
    Webhook,
    delivery_of,
)

_STATE, _HOST, _RUN = (SearchAttributeKey.for_keyword(name) for name in DELIVERY_ATTRIBUTES)
_TENANT = SearchAttributeKey.for_keyword("Tenant")

# Many receivers that failed at the same moment shall not be tried again at the same moment.
_JITTER = 0.1

# 15 s for the receiver; the rest for a run that is about to close, and for a busy worker.
_ATTEMPT_TIMEOUT = timedelta(seconds=60)
_HEARTBEAT_TIMEOUT = timedelta(seconds=8)

# Attempts that are kept in the log, of a delivery that is redelivered again and again.
_REMEMBERED = 40


@workflow.defn
class WebhookDelivery:
    """Completes when the receiver took it; fails when it is given up, and so is a dead letter."""

    @workflow.init
    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._log = DeliveryLog(attempts=delivery.earlier)
        self._asked_for = False
        self._made = 0
        self._ailing = False

    @workflow.run
    async def run(self, delivery: Delivery) -> DeliveryLog:
        """The log of all attempts."""
        try:
            reason = await self._deliver()
        except (asyncio.CancelledError, ActivityError) as error:
            if is_cancelled_exception(error):
                self._tell(DeliveryState.CANCELLED, reason="It was cancelled by hand.")
            raise
        if reason is None:
            self._tell(DeliveryState.DELIVERED)
            return self._log
        self._tell(DeliveryState.EXHAUSTED, reason=reason)
        raise ApplicationError(reason, type="DeliveryExhausted", non_retryable=True)

    @workflow.signal(description="Makes an attempt now; the schedule goes on after it.")
    def deliver_now(self) -> None:
        """Sent by `POST /webhooks/deliveries/{id}/redeliver`, or by hand."""
        self._asked_for = True

    async def _deliver(self) -> str | None:
        """None once it was taken, else why it is given up."""
        outcome: AttemptOutcome | None = None
        for pause in self._delivery.webhook.schedule:
            due = workflow.now() + _jittered(max(pause, outcome.retry_after if outcome else 0.0))
            in_turn = False
            while not in_turn:
                if outcome is not None:
                    self._tell(DeliveryState.RETRYING, next_attempt_at=due, reason=outcome.reason)
                in_turn = not await self._asked_for_before(due)
                outcome = await self._attempt(by_hand=not in_turn or (self._made == 0 and self._delivery.by_hand))
                if outcome.verdict is AttemptVerdict.DELIVERED:
                    return None
                if outcome.verdict is AttemptVerdict.FINAL:
                    return outcome.reason
                due = max(due, workflow.now() + timedelta(seconds=outcome.retry_after))
        assert outcome is not None, "a schedule has an attempt"  # noqa: S101
        return f"Every attempt of the schedule failed. The last: {outcome.reason}"

    async def _asked_for_before(self, due: datetime) -> bool:
        """Waits for the moment; True when somebody wants an attempt sooner."""
        if not self._asked_for and (seconds := (due - workflow.now()).total_seconds()) > 0:
            with suppress(asyncio.TimeoutError):
                await workflow.wait_condition(
                    lambda: self._asked_for, timeout=seconds, timeout_summary="until the next attempt"
                )
        asked_for, self._asked_for = self._asked_for, False
        return asked_for

    async def _attempt(self, *, by_hand: bool) -> AttemptOutcome:
        self._made += 1
        webhook, run = self._delivery.webhook, self._delivery.run
        outcome = await workflow.execute_activity_method(
            WebhookAttempts.attempt_delivery,
            AttemptOrder(run=run, webhook=webhook, first=self._made == 1, by_hand=by_hand, life=self._delivery.life),
            start_to_close_timeout=_ATTEMPT_TIMEOUT,
            heartbeat_timeout=_HEARTBEAT_TIMEOUT,
            # by itself only where a worker died in the middle, or a store or Temporal was away
            retry_policy=RetryPolicy(maximum_interval=timedelta(minutes=1)),
            summary=f"attempt {self._made}" + (" by hand" if by_hand else ""),
        )
        if outcome.attempt is not None:
            made: Attempt = outcome.attempt.model_copy(update={"by_hand": by_hand})
            attempts = [*self._log.attempts, made][-_REMEMBERED:]
            self._log = DeliveryLog(attempts=attempts)
            failed = outcome.verdict is AttemptVerdict.FAILED
            # A single hiccup is not worth remembering: a third of all attempts may be one.
            self._ailing = self._ailing or outcome.ailing or (failed and self._made > 1)
            if self._ailing and outcome.verdict is not AttemptVerdict.FINAL:
                await self._report(answered=not failed)
        return outcome

    async def _report(self, *, answered: bool) -> None:
        news = ReceiverNews(tenant=tenant_of(self._delivery.run), host=self._delivery.webhook.host, answered=answered)
        try:
            await workflow.execute_activity_method(
                Receivers.report_receiver,
                news,
                start_to_close_timeout=timedelta(seconds=10),
                schedule_to_close_timeout=timedelta(minutes=10),
                summary="tells how the receiver does",
            )
        except ActivityError as error:
            # Whether it is paused is not worth a delivery. One that was taken is not cancelled any more.
            if is_cancelled_exception(error) and not answered:
                raise

    def _tell(
        self, state: DeliveryState, *, next_attempt_at: datetime | None = None, reason: str | None = None
    ) -> None:
        """Shows where it stands: to those who list deliveries, and in the Temporal UI."""
        self._log = self._log.model_copy(update={"next_attempt_at": next_attempt_at, "reason": reason})
        workflow.upsert_search_attributes([_STATE.value_set(state)])
        workflow.upsert_memo({LOG: self._log})
        lines = [f"**{state}** after {len(self._log.attempts)} attempts.", reason or ""]
        if next_attempt_at is not None:
            lines.append(f"Next attempt {next_attempt_at:%Y-%m-%d %H:%M:%S} UTC.")
        workflow.set_current_details("\n\n".join(filter(None, lines)))


def _jittered(seconds: float) -> timedelta:
    """Never sooner than the schedule, or the receiver, says."""
    return timedelta(seconds=seconds * (1 + _JITTER * workflow.random().random()))


def delivery_attributes(tenant: str, webhook: Webhook, run: str) -> TypedSearchAttributes:
    """What a delivery begins with."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(_TENANT, tenant),
            SearchAttributePair(_STATE, DeliveryState.PENDING),
            SearchAttributePair(_HOST, webhook.host),
            SearchAttributePair(_RUN, public_id(run)),
        ]
    )


async def start_delivery(webhook: Webhook, life: int) -> None:
    """Starts the present run's delivery, which outlives it. Its first attempt waits until the run is closed."""
    info = workflow.info()
    run = info.workflow_id
    # A run that was reset is told but once.
    with suppress(WorkflowAlreadyStartedError):
        await workflow.start_child_workflow(
            WebhookDelivery.run,
            Delivery(run=run, webhook=webhook, life=life),
            id=delivery_of(run, life),
            task_queue=webhook.task_queue,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            search_attributes=delivery_attributes(tenant_of(run), webhook, run),
            memo={LOG: DeliveryLog()},
            static_summary=f"{public_id(run)} to {webhook.host}",
            priority=info.priority,
        )
