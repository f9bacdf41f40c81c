"""Webhooks: the endpoint of a run, the delivery of its outcome, and the log of the attempts."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from sevenfold.contracts.identity import DELIVERY_PREFIX, build_workflow_id, derive_id, parse_public_id, parse_tenant
from sevenfold.contracts.payload import Payload, Seconds

# Ten attempts over 75 hours: the delay before each, in seconds.
DEFAULT_SCHEDULE = (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)

# Search attributes of deliveries, for the Temporal UI and `GET /webhooks/deliveries`.
DELIVERY_ATTRIBUTES = ("DeliveryState", "UrlHost", "SourceRun")

# The memo of a run that has a webhook.
WEBHOOK_MEMO = "webhook"

# The memo of WebhookDelivery that holds its DeliveryLog.
LOG_MEMO = "log"

# The memo of EndpointHealth that holds its EndpointState.
ENDPOINT_MEMO = "state"


def webhook_task_queue(task_queue: str) -> str:
    """The task queue of deliveries, separate so that slow receivers do not delay other work."""
    return f"{task_queue}-webhooks"


def delivery_workflow_id(run_workflow_id: str, generation: int = 1) -> str:
    """Returns the workflow id of the delivery of one generation of a run."""
    tenant = parse_tenant(run_workflow_id)
    key = parse_public_id(run_workflow_id) if generation == 1 else f"{parse_public_id(run_workflow_id)}-{generation}"
    return build_workflow_id(tenant, derive_id(DELIVERY_PREFIX, tenant, "delivery", key))


class Webhook(Payload):
    """A run's webhook.

    `sealed_url` is sealed for the run's workflow id; deliveries that started before URLs were sealed have `url`.
    `host` is the URL's. `sealed_secrets` is a JSON list, newest first, sealed for the run's workflow id. `schedule`
    holds the delay before each attempt in seconds; a delivery keeps the schedule that it started with.
    """

    url: str = ""
    sealed_url: str | None = None
    host: str
    sealed_secrets: str
    schedule: list[Seconds]
    task_queue: str


class DeliveryState(StrEnum):
    """`pending`: no attempt has failed. `exhausted`: the schedule is over; a dead letter until it is redelivered."""

    PENDING = "pending"
    RETRYING = "retrying"
    DELIVERED = "delivered"
    EXHAUSTED = "exhausted"
    CANCELLED = "cancelled"


class DeliveryAttempt(Payload):
    """One POST, or the error that prevented it. `answer` is the first 1 kB of the receiver's response."""

    at: datetime
    status: int | None = Field(default=None, description="The receiver's HTTP status, if it answered.")
    error: str | None = Field(default=None, description="Why there is no status.")
    milliseconds: int
    answer: str = ""
    is_manual: bool = Field(default=False, description="Requested by hand, outside the schedule.")


class DeliveryLog(Payload):
    """State of a delivery: its memo and its workflow's result."""

    attempts: list[DeliveryAttempt] = []
    next_attempt_at: datetime | None = None
    reason: str | None = None


class DeliveryInput(Payload):
    """Input of `WebhookDelivery`: the run's workflow id and the webhook. A redelivery also has the previous
    attempts.
    """

    run_workflow_id: str
    webhook: Webhook
    previous_attempts: list[DeliveryAttempt] = []
    is_manual: bool = False
    generation: int = 1


class AttemptInput(Payload):
    """One attempt. `is_first`: the first attempt of a new delivery, which a paused endpoint does not get."""

    run_workflow_id: str
    webhook: Webhook
    is_first: bool
    is_manual: bool
    generation: int = 1


class AttemptResult(StrEnum):
    """What an attempt means for its delivery. `final`: no further attempt can succeed."""

    DELIVERED = "delivered"
    FAILED = "failed"
    FINAL = "final"


class AttemptOutcome(Payload):
    """Result of an attempt. `attempt` is None if no POST was made; `retry_after` is the receiver's `Retry-After` in
    seconds; `is_degraded`: the endpoint has failed recently.
    """

    result: AttemptResult
    attempt: DeliveryAttempt | None
    reason: str
    retry_after: Seconds = 0.0
    is_degraded: bool = False


class EndpointState(Payload):
    """Health of a host that failed a tenant's deliveries and has not accepted one since."""

    failing_since: datetime | None = None
    failures: int = 0
    is_paused: bool = False
    probed_at: datetime | None = None


class EndpointReport(Payload):
    """Whether an endpoint accepted a delivery of the tenant."""

    tenant: str
    host: str
    succeeded: bool


def endpoint_workflow_id(tenant: str, host: str) -> str:
    """Returns the workflow id of a failing endpoint's health. It cannot be a public id."""
    return f"{tenant}:receiver:{host}"
