"""Webhooks: where a run's deliveries go, the delivery, and the log of its attempts."""

from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import Field

from sevenfold.contracts.agents.interface import Progress
from sevenfold.contracts.agents.questions import Question
from sevenfold.contracts.identity import DELIVERY_PREFIX, build_workflow_id, derive_id, parse_public_id, parse_tenant
from sevenfold.contracts.payload import Payload, Seconds

# Ten attempts over 75 hours: the delay before each, in seconds.
DEFAULT_SCHEDULE = (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)

# Search attributes of deliveries, for the Temporal UI and `GET /webhooks/deliveries`.
DELIVERY_ATTRIBUTES = ("DeliveryState", "UrlHost", "SourceRun")

# Search attributes of deliveries with lists as values. Temporal on SQL has ten of the type Keyword per namespace and
# three of KeywordList, and all those ten are taken.
DELIVERY_LIST_ATTRIBUTES = ("WebhookEndpoint",)

# The memo of a run whose outcome is delivered.
WEBHOOK_MEMO = "webhook"

# The memo of WebhookDelivery that holds its DeliveryLog.
LOG_MEMO = "log"

# The memo of WebhookDelivery that holds its DeliverySubject.
SUBJECT_MEMO = "subject"

# The memo of EndpointHealth that holds its EndpointState.
ENDPOINT_MEMO = "state"


def webhook_task_queue(task_queue: str) -> str:
    """The task queue of deliveries, separate so that slow receivers do not delay other work."""
    return f"{task_queue}-webhooks"


class WebhookEvent(StrEnum):
    """What a run delivers. `completed`: its end, whether completed, failed or cancelled. `input_required`: its agent
    asks people.
    """

    STARTED = "started"
    PROGRESS = "progress"
    INPUT_REQUIRED = "input_required"
    COMPLETED = "completed"


def delivery_workflow_id(run_workflow_id: str, generation: int = 1, update: int | None = None) -> str:
    """Returns the workflow id of a delivery of one generation of a run: of the outcome, or of the update with this
    sequence.
    """
    tenant = parse_tenant(run_workflow_id)
    key = parse_public_id(run_workflow_id) if generation == 1 else f"{parse_public_id(run_workflow_id)}-{generation}"
    if update is not None:
        key = f"{key}.{update}"
    return build_workflow_id(tenant, derive_id(DELIVERY_PREFIX, tenant, "delivery", key))


def updates_workflow_id(run_workflow_id: str, generation: int = 1) -> str:
    """Returns the workflow id of `WebhookUpdates` of one generation of a run."""
    suffix = "" if generation == 1 else f"-{generation}"
    return f"{parse_tenant(run_workflow_id)}:updates:{parse_public_id(run_workflow_id)}{suffix}"


class Webhook(Payload):
    """A run's webhook: a URL with secrets, or a stored endpoint.

    `sealed_url` and `sealed_secrets`, a JSON list with the newest first, are sealed for the run's workflow id; `host`
    is the URL's. With `endpoint_id` both are empty: each attempt takes URL and secrets from the endpoint, as they are
    then. `schedule` holds the delay before each attempt in seconds; a delivery keeps the schedule that it started
    with, and a run the `events`.
    """

    sealed_url: str = ""
    host: str
    sealed_secrets: str = ""
    schedule: list[Seconds]
    task_queue: str
    endpoint_id: str | None = None
    events: list[WebhookEvent] = [WebhookEvent.COMPLETED]

    @property
    def delivers_outcome(self) -> bool:
        """Whether the run delivers its outcome."""
        return WebhookEvent.COMPLETED in self.events

    @property
    def sends_updates(self) -> bool:
        """Whether the run delivers more than its outcome."""
        return any(event is not WebhookEvent.COMPLETED for event in self.events)


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


class DeliverySubject(Payload):
    """What a delivery reports. `sequence` orders the deliveries of a run; None if the webhook is a URL, which gets
    the outcome alone.
    """

    event: WebhookEvent = WebhookEvent.COMPLETED
    sequence: int | None = None
    progress: Progress | None = None
    questions: list[Question] = []
    endpoint_id: str | None = None


class QuestionsAsked(Payload):
    """The signal `input_required` to `WebhookUpdates`. `deadline`: the run ends by then, answered or not."""

    questions: list[Question]
    deadline: datetime


class DeliveryInput(Payload):
    """Input of `WebhookDelivery`: the run's workflow id and the webhook. A redelivery also has the previous
    attempts. `traceparent`: of the run's span.
    """

    run_workflow_id: str
    webhook: Webhook
    subject: DeliverySubject = DeliverySubject()
    previous_attempts: list[DeliveryAttempt] = []
    is_manual: bool = False
    generation: int = 1
    traceparent: str = ""

    @property
    def workflow_id(self) -> str:
        """The id of the delivery's workflow."""
        is_update = self.subject.event is not WebhookEvent.COMPLETED
        return delivery_workflow_id(
            self.run_workflow_id, self.generation, self.subject.sequence if is_update else None
        )


# What the sequence of an outcome adds whose WebhookUpdates is gone: more than any that it gives out.
UNKNOWN_SEQUENCES = 10_000


class UpdatesInput(Payload):
    """Input of `WebhookUpdates`, which ends some time after the run's `deadline`. `sequence`: that of the last
    delivery of earlier generations.
    """

    run_workflow_id: str
    webhook: Webhook
    deadline: datetime
    generation: int = 1
    sequence: int = 0
    traceparent: str = ""


class AttemptInput(Payload):
    """One attempt. `is_first`: the first attempt of a new delivery, which a paused host does not get. `traceparent`:
    of the run's span.
    """

    run_workflow_id: str
    webhook: Webhook
    subject: DeliverySubject = DeliverySubject()
    is_first: bool
    is_manual: bool
    traceparent: str = ""


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


# So many failures without a success count as failing, over a period that depends on what follows from it.
_MIN_FAILURES = 5


class EndpointState(Payload):
    """Health of what failed a tenant's deliveries and has not accepted one since: a host, or a stored endpoint.

    `is_paused` and `probed_at` apply to hosts. A stored endpoint is disabled instead.
    """

    failing_since: datetime | None = None
    failures: int = 0
    is_paused: bool = False
    probed_at: datetime | None = None

    def after_failure(self, now: datetime) -> "EndpointState":
        """Returns the state after one more failure. Further failures change nothing but the time."""
        failures = min(self.failures + 1, _MIN_FAILURES)
        return self.model_copy(update={"failing_since": self.failing_since or now, "failures": failures})

    def has_failed_for(self, period: timedelta, now: datetime) -> bool:
        """Whether it has failed often enough, over this period."""
        since = self.failing_since
        return since is not None and self.failures >= _MIN_FAILURES and now - since >= period


class EndpointReport(Payload):
    """Whether a host, or the stored endpoint `endpoint_id`, accepted a delivery of the tenant."""

    tenant: str
    host: str
    succeeded: bool
    endpoint_id: str | None = None


def endpoint_workflow_id(tenant: str, host: str) -> str:
    """Returns the workflow id of a failing host's health. It cannot be a public id."""
    return f"{tenant}:receiver:{host}"
