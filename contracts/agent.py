"""The agent: one streaming-first interface that serves all seven patterns."""

import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Protocol

from pydantic import Field

from sevenfold.contracts.payload import JsonObject, Payload

AgentName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Confidence = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class AgentRequest(Payload):
    """What an agent is asked. `attempt` starts at 1 and rises with every retry of the same run."""

    run_id: str
    attempt: int = 1
    task: str
    query: str | None = None
    context: JsonObject = {}
    data: JsonObject = {}
    params: JsonObject = {}
    metadata: JsonObject = {}


class WorkflowTarget(Payload):
    """An agent that is a workflow: its type, and the task queue that its workers poll."""

    workflow: str
    task_queue: str


class Usage(Payload):
    """Tokens, as the model's provider counted them."""

    input_tokens: int = 0
    output_tokens: int = 0


class Delta(Payload):
    """A piece of the response's text, in order."""

    text: str


class Progress(Payload):
    """How far the work is: percent from 0 to 100, and a short note for a person."""

    percent: Percent
    note: str = ""


class Reply(Payload):
    """The whole answer; the last event of a call. `response` is text, `data` whatever is structured."""

    response: str = ""
    confidence: Confidence | None = None
    data: JsonObject | None = None
    usage: Usage | None = None


AgentEvent = Delta | Progress | Reply


@dataclass(frozen=True)
class AgentContext:
    """What surrounds a call.

    `deadline` is the moment (UTC) after which nobody waits for the answer. An async agent learns of a
    cancellation by `asyncio.CancelledError`; one that runs in a thread cannot, and should look at `cancelled`
    between its steps. `request_id` and `traceparent` (W3C) are those of the request that began the run, or empty.
    """

    deadline: datetime
    request_id: str = ""
    traceparent: str = ""
    cancelled: threading.Event = field(default_factory=threading.Event)

    def remaining_seconds(self) -> float:
        """Seconds until the deadline, never below 0."""
        return max(0.0, (self.deadline - datetime.now(UTC)).total_seconds())


class RequestContext(Payload):
    """The request that began a run: its id, and its `traceparent` (W3C)."""

    request_id: str = ""
    traceparent: str = ""

    def agent_context(self, deadline: datetime) -> AgentContext:
        """What surrounds a call for that run."""
        return AgentContext(deadline, request_id=self.request_id, traceparent=self.traceparent)


class Agent(Protocol):
    """Anything that answers a request by events, a `Reply` being the last.

    Raises one of `sevenfold.contracts.verdicts`; any other exception becomes `AgentFailed`.
    """

    def run(self, request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]: ...
