"""A run: one execution of a pattern, as its workflow takes it and returns it."""

from enum import StrEnum

from contracts.agent import AgentRequest, Reply
from contracts.payload import Payload, Seconds
from contracts.verdicts import Verdict


class Pattern(StrEnum):
    """The integration patterns, by the word that the wire uses for them."""

    SYNCHRONOUS = "synchronous"
    QUEUE = "queue"
    POLLING = "polling"


WORKFLOW_TYPES = {
    Pattern.SYNCHRONOUS: "SynchronousRequest",
    Pattern.QUEUE: "AsynchronousQueue",
    Pattern.POLLING: "Polling",
}
ID_PREFIXES = {Pattern.SYNCHRONOUS: "qry", Pattern.QUEUE: "job", Pattern.POLLING: "task"}


def batch_queue(task_queue: str) -> str:
    """The task queue of long work, beside that of the work somebody waits for."""
    return f"{task_queue}-batch"


# What a person reads and filters by in the Temporal UI, and `GET /runs` in visibility.
SEARCH_ATTRIBUTES = ("Pattern", "Agent", "Task", "Tenant")


class RunStatus(StrEnum):
    """The five status words of the wire."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RunInput(Payload):
    """The one object that a pattern's workflow takes. `timeout` is the whole run's, in seconds."""

    agent: str
    request: AgentRequest
    timeout: Seconds


class RunResult(Payload):
    """The one object that a pattern's workflow returns. `seconds` is from the run's start to its reply."""

    reply: Reply
    seconds: Seconds
    attempts: int = 1


class RunError(Payload):
    """Why a run failed. Doubles as the detail of the Temporal failure that ends the workflow."""

    verdict: Verdict
    detail: str
    attempts: int = 1
    retry_after: Seconds | None = None
    pointer: str | None = None
