"""Webhooks: where a run tells how it ended, the delivery of that, and the log of its attempts."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from sevenfold.contracts.identity import DELIVERY_PREFIX, build_workflow_id, derive_id, parse_public_id, parse_tenant
from sevenfold.contracts.payload import Payload, Seconds

# DESIGN's ten attempts over 75 hours: the pause before each, in seconds.
DEFAULT_SCHEDULE = (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)

# What deliveries are filtered by in the Temporal UI and at `GET /webhooks/deliveries`.
DELIVERY_ATTRIBUTES = ("DeliveryState", "UrlHost", "SourceRun")

# The memo of a run that has a webhook.
WEBHOOK_MEMO = "webhook"

# The memo of a delivery that holds its DeliveryLog.
LOG_MEMO = "log"

# The memo of a failing receiver that holds its EndpointState.
ENDPOINT_MEMO = "state"


def webhook_task_queue(task_queue: str) -> str:
    """The task queue of deliveries: receivers that hang take nobody else's place."""
    return f"{task_queue}-webhooks"


def delivery_workflow_id(run_workflow_id: str, generation: int = 1) -> str:
    """The workflow id of the one delivery of a run's life; `run_workflow_id` is the run's workflow id."""
    tenant = parse_tenant(run_workflow_id)
    key = parse_public_id(run_workflow_id) if generation == 1 else f"{parse_public_id(run_workflow_id)}-{generation}"
    return build_workflow_id(tenant, derive_id(DELIVERY_PREFIX, tenant, "delivery", key))


class Webhook(Payload):
    """Where a run tells how it ended.

    `host` is the URL's, `sealed_secrets` a JSON list, newest first, sealed for the run's workflow id. `schedule`
    holds the pause before each attempt in seconds: a delivery keeps the one it began with.
    """

    url: str
    host: str
    sealed_secrets: str
    schedule: list[Seconds]
    task_queue: str


class DeliveryState(StrEnum):
    """`pending`: nothing has failed yet. `exhausted`: given up; a dead letter, until it is delivered again."""

    PENDING = "pending"
    RETRYING = "retrying"
    DELIVERED = "delivered"
    EXHAUSTED = "exhausted"
    CANCELLED = "cancelled"


class DeliveryAttempt(Payload):
    """One POST, or what kept us from it. `answer` is the beginning of the receiver's, 1 kB at most."""

    at: datetime
    status: int | None = Field(default=None, description="The receiver's HTTP status, if it answered.")
    error: str | None = Field(default=None, description="Why there is no status.")
    milliseconds: int
    answer: str = ""
    is_manual: bool = Field(default=False, description="Somebody asked for it; it is not one of the schedule.")


class DeliveryLog(Payload):
    """What has come of a delivery so far: in its memo, and its workflow's result."""

    attempts: list[DeliveryAttempt] = []
    next_attempt_at: datetime | None = None
    reason: str | None = None


class DeliveryInput(Payload):
    """The one object that `WebhookDelivery` takes: the run's workflow id, where to, and for one that is delivered
    again what was attempted before.
    """

    run_workflow_id: str
    webhook: Webhook
    previous_attempts: list[DeliveryAttempt] = []
    is_manual: bool = False
    generation: int = 1


class AttemptInput(Payload):
    """One attempt. `is_first`: of a new delivery, which a paused receiver does not get."""

    run_workflow_id: str
    webhook: Webhook
    is_first: bool
    is_manual: bool
    generation: int = 1


class AttemptResult(StrEnum):
    """What an attempt means for its delivery. `final`: no other attempt will end better."""

    DELIVERED = "delivered"
    FAILED = "failed"
    FINAL = "final"


class AttemptOutcome(Payload):
    """What came of an attempt (None: none was made). `retry_after` in seconds, as the receiver asked; `is_degraded`:
    this receiver is known for failures.
    """

    result: AttemptResult
    attempt: DeliveryAttempt | None
    reason: str
    retry_after: Seconds = 0.0
    is_degraded: bool = False


class EndpointState(Payload):
    """What is remembered of a host that failed a tenant's deliveries, and has not taken one since."""

    failing_since: datetime | None = None
    failures: int = 0
    is_paused: bool = False
    probed_at: datetime | None = None


class EndpointReport(Payload):
    """Whether a receiver took a delivery of the tenant's."""

    tenant: str
    host: str
    succeeded: bool


def endpoint_workflow_id(tenant: str, host: str) -> str:
    """The workflow id under which a failing receiver is remembered; no public id looks so."""
    return f"{tenant}:receiver:{host}"
