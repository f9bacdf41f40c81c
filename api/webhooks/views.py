"""Webhook deliveries as the API shows them, read from Temporal."""

from datetime import datetime

from pydantic import Field
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.common import SearchAttributeKey

from sevenfold.adapters.temporal.find_execution import find_execution
from sevenfold.api.dependencies import API_PREFIX, TemporalUi
from sevenfold.api.http.problems import not_found
from sevenfold.contracts.identity import (
    DELIVERY_PREFIX,
    build_workflow_id,
    is_public_id,
    parse_public_id,
    parse_tenant,
)
from sevenfold.contracts.payload import Payload
from sevenfold.contracts.webhooks.delivery import (
    DELIVERY_ATTRIBUTES,
    LOG_MEMO,
    SUBJECT_MEMO,
    DeliveryAttempt,
    DeliveryLog,
    DeliveryState,
    DeliverySubject,
    WebhookEvent,
    delivery_workflow_id,
)

_STATE, _HOST, _RUN = (SearchAttributeKey.for_keyword(name) for name in DELIVERY_ATTRIBUTES)
_STOPPED = (WorkflowExecutionStatus.CANCELED, WorkflowExecutionStatus.TERMINATED)


class RunWebhookView(Payload):
    """The state of a run's webhook."""

    state: DeliveryState
    attempts: int
    delivery_id: str
    next_attempt_at: datetime | None


class DeliveryLinks(Payload):
    """Links of a delivery."""

    self: str
    run: str
    redeliver: str
    temporal_ui: str | None


class DeliverySummary(Payload):
    """A delivery in a list."""

    id: str
    tenant: str
    run_id: str
    host: str = Field(description="The host of the webhook's URL.")
    endpoint_id: str | None = Field(description="The stored endpoint; null if the run has a URL of its own.")
    event: WebhookEvent = Field(description="What it reports.")
    sequence: int | None = Field(description="Its place among the run's deliveries to the endpoint.")
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime | None
    reason: str | None = Field(description="Why the last attempt failed, or why there are no more.")
    created_at: datetime
    closed_at: datetime | None
    links: DeliveryLinks


class DeliveryDetail(DeliverySummary):
    """A delivery with all its attempts; with the last 40 if it was redelivered often."""

    log: list[DeliveryAttempt]


async def find_delivery(client: Client, tenant: str, delivery_id: str) -> WorkflowExecutionDescription:
    """Describes a delivery. Raises 404 if there is none with this id."""
    if is_public_id(delivery_id) and delivery_id.startswith(f"{DELIVERY_PREFIX}_"):
        found = await find_execution(client, build_workflow_id(tenant, delivery_id))
        if found is not None:
            return found
    raise not_found("This delivery")


async def load_run_webhook(client: Client, run_workflow_id: str, generation: int) -> RunWebhookView:
    """Returns the webhook of a run, by the run's workflow id. It is pending until the run has ended."""
    delivery_id = delivery_workflow_id(run_workflow_id, generation)
    found = await find_execution(client, delivery_id)
    log = await load_log(found) if found else DeliveryLog()
    return RunWebhookView(
        state=find_delivery_state(found) if found else DeliveryState.PENDING,
        attempts=len(log.attempts),
        delivery_id=parse_public_id(delivery_id),
        next_attempt_at=log.next_attempt_at,
    )


async def load_delivery(ui: TemporalUi, execution: WorkflowExecution) -> DeliveryDetail:
    """Returns a delivery with all its attempts."""
    summary = await summarize_delivery(ui, execution)
    return DeliveryDetail(**dict(summary), log=(await load_log(execution)).attempts)


async def summarize_delivery(ui: TemporalUi, execution: WorkflowExecution) -> DeliverySummary:
    """Returns a delivery as far as its execution and its memos show it."""
    log = await load_log(execution)
    subject = await _load_subject(execution)
    attributes = execution.typed_search_attributes
    tenant, delivery_id, run_id = parse_tenant(execution.id), parse_public_id(execution.id), attributes.get(_RUN, "")
    path = f"{API_PREFIX}/webhooks/deliveries/{delivery_id}"
    return DeliverySummary(
        id=delivery_id,
        tenant=tenant,
        run_id=run_id,
        host=attributes.get(_HOST, ""),
        endpoint_id=subject.endpoint_id,
        event=subject.event,
        sequence=subject.sequence,
        state=find_delivery_state(execution),
        attempts=len(log.attempts),
        next_attempt_at=log.next_attempt_at,
        reason=log.reason,
        created_at=execution.start_time,
        closed_at=execution.close_time,
        links=DeliveryLinks(
            self=path,
            run=f"{API_PREFIX}/runs/{run_id}",
            redeliver=f"{path}/redeliver",
            temporal_ui=ui.link(tenant, delivery_id),
        ),
    )


def find_delivery_state(execution: WorkflowExecution) -> DeliveryState:
    """Returns its state. A workflow that an operator ended could not update the search attribute itself."""
    if execution.status in _STOPPED:
        return DeliveryState.CANCELLED
    return DeliveryState(execution.typed_search_attributes.get(_STATE, DeliveryState.PENDING))


async def _load_subject(execution: WorkflowExecution) -> DeliverySubject:
    """Returns what it reports. A memo that cannot be decoded must not hide the other deliveries of a list: its log
    has the reason.
    """
    try:
        found: DeliverySubject = await execution.memo_value(
            SUBJECT_MEMO, DeliverySubject(), type_hint=DeliverySubject
        )
    except Exception:
        return DeliverySubject()
    return found


async def load_log(execution: WorkflowExecution) -> DeliveryLog:
    """Returns the attempts so far. If the memo cannot be decoded, the log holds only that reason."""
    try:
        log: DeliveryLog = await execution.memo_value(LOG_MEMO, DeliveryLog(), type_hint=DeliveryLog)
    except Exception as error:
        return DeliveryLog(
            reason=f"The log cannot be decoded ({type(error).__name__}). Open the delivery in the Temporal UI."
        )
    return log
