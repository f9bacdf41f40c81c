"""A delivery as the wire shows it, read from what Temporal knows."""

from datetime import datetime

from pydantic import Field
from temporalio.client import WorkflowExecution, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.common import SearchAttributeKey

from api.gateway import API_PREFIX, Gateway
from api.listing import find_execution
from api.problems import not_found
from contracts.identity import DELIVERY_PREFIX, is_public_id, public_id, workflow_id
from contracts.payload import Payload
from contracts.webhooks import DELIVERY_ATTRIBUTES, LOG, Attempt, DeliveryLog, DeliveryState, delivery_of

_STATE, _HOST, _RUN = (SearchAttributeKey.for_keyword(name) for name in DELIVERY_ATTRIBUTES)
_STOPPED = (WorkflowExecutionStatus.CANCELED, WorkflowExecutionStatus.TERMINATED)


class RunWebhook(Payload):
    """How far a run's webhook is."""

    state: DeliveryState
    attempts: int
    delivery_id: str
    next_attempt_at: datetime | None


class DeliveryLinks(Payload):
    """Where to go on from a delivery."""

    self: str
    run: str
    redeliver: str
    temporal_ui: str | None


class DeliverySummary(Payload):
    """A delivery in a list."""

    id: str
    run_id: str
    host: str = Field(description="Of the webhook's URL.")
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime | None
    reason: str | None = Field(description="Why the last attempt failed, or it was given up.")
    created_at: datetime
    closed_at: datetime | None
    links: DeliveryLinks


class DeliveryDetail(DeliverySummary):
    """A delivery on its own, with every attempt (the last 40, of one that was redelivered often)."""

    log: list[Attempt]


async def described_delivery(gateway: Gateway, tenant: str, delivery_id: str) -> WorkflowExecutionDescription:
    """What Temporal knows of a delivery now. Raises the problem of one that is not there."""
    if is_public_id(delivery_id) and delivery_id.startswith(f"{DELIVERY_PREFIX}_"):
        found = await find_execution(gateway, workflow_id(tenant, delivery_id))
        if found is not None:
            return found
    raise not_found("This delivery")


async def run_webhook(gateway: Gateway, run: str, life: int) -> RunWebhook:
    """The webhook of a run that has one, by the run's workflow id; its delivery begins when the run has ended."""
    delivery = delivery_of(run, life)
    found = await find_execution(gateway, delivery)
    log = await log_of(found) if found else DeliveryLog()
    return RunWebhook(
        state=state_of(found) if found else DeliveryState.PENDING,
        attempts=len(log.attempts),
        delivery_id=public_id(delivery),
        next_attempt_at=log.next_attempt_at,
    )


async def whole_delivery(gateway: Gateway, tenant: str, execution: WorkflowExecution) -> DeliveryDetail:
    """A delivery with all its attempts."""
    log = await log_of(execution)
    return DeliveryDetail(**dict(summary(gateway, tenant, execution, log)), log=log.attempts)


def summary(gateway: Gateway, tenant: str, execution: WorkflowExecution, log: DeliveryLog) -> DeliverySummary:
    """A delivery as its execution tells it."""
    attributes = execution.typed_search_attributes
    delivery_id, run_id = public_id(execution.id), attributes.get(_RUN, "")
    path = f"{API_PREFIX}/webhooks/deliveries/{delivery_id}"
    return DeliverySummary(
        id=delivery_id,
        run_id=run_id,
        host=attributes.get(_HOST, ""),
        state=state_of(execution),
        attempts=len(log.attempts),
        next_attempt_at=log.next_attempt_at,
        reason=log.reason,
        created_at=execution.start_time,
        closed_at=execution.close_time,
        links=DeliveryLinks(
            self=path,
            run=f"{API_PREFIX}/runs/{run_id}",
            redeliver=f"{path}/redeliver",
            temporal_ui=gateway.ui_link(tenant, delivery_id),
        ),
    )


def state_of(execution: WorkflowExecution) -> DeliveryState:
    """Its state; one that an operator ended could not tell so itself."""
    if execution.status in _STOPPED:
        return DeliveryState.CANCELLED
    return DeliveryState(execution.typed_search_attributes.get(_STATE, DeliveryState.PENDING))


async def log_of(execution: WorkflowExecution) -> DeliveryLog:
    """All that came of it so far; of a log that cannot be decoded, just that."""
    try:
        log: DeliveryLog = await execution.memo_value(LOG, DeliveryLog(), type_hint=DeliveryLog)
    except Exception as error:
        return DeliveryLog(reason=f"The log cannot be shown here ({type(error).__name__}); the Temporal UI has it.")
    return log
