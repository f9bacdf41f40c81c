"""Webhooks: where a run tells how it ended, the delivery of that, and the log of its attempts."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from contracts.identity import DELIVERY_PREFIX, keyed_id, public_id, tenant_of, workflow_id
from contracts.payload import Payload, Seconds

# DESIGN's ten attempts over 75 hours: the pause before each, in seconds.
SCHEDULE = (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)

# What deliveries are filtered by in the Temporal UI and at `GET /webhooks/deliveries`.
DELIVERY_ATTRIBUTES = ("DeliveryState", "UrlHost", "SourceRun")

# The memo of a run that has a webhook.
WEBHOOK = "webhook"

# The memo of a delivery that holds its DeliveryLog.
LOG = "log"

# The memo of a failing receiver that holds its ReceiverState.
RECEIVER_STATE = "state"


def webhook_queue(task_queue: str) -> str:
    """The task queue of deliveries: receivers that hang take nobody else's place."""
    return f"{task_queue}-webhooks"


def delivery_of(run: str, life: int = 1) -> str:
    """The workflow id of the one delivery of a run's life; `run` is the run's workflow id."""
    tenant = tenant_of(run)
    key = public_id(run) if life == 1 else f"{public_id(run)}-{life}"
    return workflow_id(tenant, keyed_id(DELIVERY_PREFIX, tenant, "delivery", key))


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


class Attempt(Payload):
    """One POST, or what kept us from it. `answer` is the beginning of the receiver's, 1 kB at most."""

    at: datetime
    status: int | None = Field(default=None, description="The receiver's HTTP status, if it answered.")
    error: str | None = Field(default=None, description="Why there is no status.")
    milliseconds: int
    answer: str = ""
    by_hand: bool = Field(default=False, description="Somebody asked for it; it is not one of the schedule.")


class DeliveryLog(Payload):
    """What has come of a delivery so far: in its memo, and its workflow's result."""

    attempts: list[Attempt] = []
    next_attempt_at: datetime | None = None
    reason: str | None = None


class Delivery(Payload):
    """The one object that `WebhookDelivery` takes: the run's workflow id, where to, and for one that is delivered
    again what was attempted before.
    """

    run: str
    webhook: Webhook
    earlier: list[Attempt] = []
    by_hand: bool = False
    life: int = 1


class AttemptOrder(Payload):
    """One attempt. `first`: of a new delivery, which a paused receiver does not get."""

    run: str
    webhook: Webhook
    first: bool
    by_hand: bool
    life: int = 1


class AttemptVerdict(StrEnum):
    """What an attempt means for its delivery. `final`: no other attempt will end better."""

    DELIVERED = "delivered"
    FAILED = "failed"
    FINAL = "final"


class AttemptOutcome(Payload):
    """What came of an attempt (None: none was made). `retry_after` in seconds, as the receiver asked; `ailing`: this
    receiver is known for failures.
    """

    verdict: AttemptVerdict
    attempt: Attempt | None
    reason: str
    retry_after: Seconds = 0.0
    ailing: bool = False


class ReceiverState(Payload):
    """What is remembered of a host that failed a tenant's deliveries, and has not taken one since."""

    failing_since: datetime | None = None
    failures: int = 0
    paused: bool = False
    probed_at: datetime | None = None


class ReceiverNews(Payload):
    """Whether a receiver took a delivery of the tenant's."""

    tenant: str
    host: str
    answered: bool


def receiver_of(tenant: str, host: str) -> str:
    """The workflow id under which a failing receiver is remembered; no public id looks so."""
    return f"{tenant}:receiver:{host}"
