"""The agent interface: one streaming interface that serves all seven patterns."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from sevenfold.contracts.agents.asking import NO_DEFAULT, Ask, ask, ask_in_thread
from sevenfold.contracts.agents.step_runner import StepOptions, is_agent_thread, on_loop, run_step, run_step_in_thread
from sevenfold.contracts.agents.unrecorded import UnrecordedCall
from sevenfold.contracts.identity import DEFAULT_TENANT
from sevenfold.contracts.payload import JsonObject, Payload

AgentName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Confidence = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Message(Payload):
    """A message of a conversation. `content`: a text, or a list of parts as OpenAI's Chat Completions has them."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[JsonObject]

    @property
    def text(self) -> str:
        """The text of all its parts."""
        if isinstance(self.content, str):
            return self.content
        return "".join(text for part in self.content if isinstance(text := part.get("text"), str))


class AgentRequest(Payload):
    """The input of an agent. `attempt` starts at 1 and increases with every retry of the same run. `turn` starts at 1
    and increases each time that the run continues after a person's answer; attempts count within a turn. `messages`
    is the conversation, if the client has one: `query` is then the text of its last message.
    """

    run_id: str
    attempt: int = 1
    turn: int = 1
    task: str
    query: str | None = None
    context: JsonObject = {}
    data: JsonObject = {}
    params: JsonObject = {}
    metadata: JsonObject = {}
    messages: list[Message] = []


class WorkflowTarget(Payload):
    """An agent of the kind `workflow`: its workflow type, the task queue that its workers poll, and whether they have
    our codec keys.
    """

    workflow: str
    task_queue: str
    codec: bool = False


_MAX_TOKENS = 10**12
_Tokens = Annotated[int, Field(ge=0, le=_MAX_TOKENS)]


class Usage(Payload):
    """Token counts as reported by the model's provider.

    As an event: what the attempt has used so far, all in all. A run with `maxTokens` or `maxCost` is stopped when
    such a report exceeds it.
    """

    input_tokens: _Tokens = 0
    output_tokens: _Tokens = 0

    def add(self, other: "Usage") -> "Usage":
        """Returns the sum, at most what a report may hold."""
        return Usage(
            input_tokens=min(_MAX_TOKENS, self.input_tokens + other.input_tokens),
            output_tokens=min(_MAX_TOKENS, self.output_tokens + other.output_tokens),
        )

    def at_least(self, other: "Usage") -> "Usage":
        """Returns the larger counts of both: what was reported is used."""
        return Usage(
            input_tokens=max(self.input_tokens, other.input_tokens),
            output_tokens=max(self.output_tokens, other.output_tokens),
        )


class Delta(Payload):
    """The next piece of the response's text."""

    text: str


class Progress(Payload):
    """Progress of the call: percent from 0 to 100, and a short note for people."""

    percent: Percent
    note: str = ""


class Reply(Payload):
    """The complete answer; the last event of a call. `response` is text, `data` structured output."""

    response: str = ""
    confidence: Confidence | None = None
    data: JsonObject | None = None
    usage: Usage | None = None


AgentEvent = Delta | Progress | Usage | Reply


@dataclass(frozen=True)
class AgentContext:
    """The context of one call.

    `deadline` is the run's deadline (UTC); later answers are discarded. A cancellation raises
    `asyncio.CancelledError` in an async agent; an agent in a thread should check `cancelled` between its steps.
    `request_id` and `traceparent` (W3C) are those of the request that started the run, or empty, and `hops` is how
    many gateways it has passed. `tenant` is the run's. `durable` keeps steps and questions, and `loop` is where it
    lives; without a run nothing is kept.
    """

    deadline: datetime
    request_id: str = ""
    traceparent: str = ""
    tenant: str = DEFAULT_TENANT
    hops: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)
    durable: Any = field(default=None, repr=False)
    loop: asyncio.AbstractEventLoop | None = field(default=None, repr=False)

    def remaining_seconds(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(0.0, (self.deadline - datetime.now(UTC)).total_seconds())

    async def step(
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        key: str | None = None,
        retries: int | None = None,
        timeout: float | None = None,
        retry_on: tuple[type[BaseException], ...] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Executes `function(*args, **kwargs)` once per run, and returns its result as JSON has it; a later attempt
        gets the recorded result. See `StepOptions` for the options, and docs/durable-agents.md.

        Raises StepFailed for a failure that is recorded, else what the function raises.
        """
        options = StepOptions(key, retries, timeout, retry_on)
        return await run_step(self.durable or UnrecordedCall(), name, function, (args, kwargs), options)

    def step_sync(
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        key: str | None = None,
        retries: int | None = None,
        timeout: float | None = None,
        retry_on: tuple[type[BaseException], ...] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The same for a plain function, which runs in a thread."""
        options = StepOptions(key, retries, timeout, retry_on)
        if self.loop is None:
            return asyncio.run(run_step(self.durable or UnrecordedCall(), name, function, (args, kwargs), options))
        return run_step_in_thread(self.durable, self.loop, name, function, (args, kwargs), options)

    async def ask(
        self,
        message: str,
        schema: Any = None,
        *,
        expires_in: float | timedelta | None = None,
        id: str | None = None,  # noqa: A002  (what it is called on the wire)
        default: Any = NO_DEFAULT,
    ) -> Any:
        """Asks a person, and returns the accepted answer; meanwhile the call has ended. `schema` is the JSON Schema
        of the answer, `expires_in` is in seconds or a timedelta, 7 days by default.

        Raises Declined and Expired, or returns `default`.
        """
        return await ask(self.durable or UnrecordedCall(), Ask(message, schema, expires_in, id, default))

    def ask_sync(
        self,
        message: str,
        schema: Any = None,
        *,
        expires_in: float | timedelta | None = None,
        id: str | None = None,  # noqa: A002
        default: Any = NO_DEFAULT,
    ) -> Any:
        """The same for a plain function."""
        question = Ask(message, schema, expires_in, id, default)
        if self.loop is None:
            return asyncio.run(ask(self.durable or UnrecordedCall(), question))
        return ask_in_thread(self.durable, partial(on_loop, self.loop, "ask"), question, is_main=is_agent_thread())


# How many calls of agents may lead from one gateway to the next, or back to itself.
MAX_HOPS = 8
HOPS_HEADER = "X-Sevenfold-Hops"


class RequestContext(Payload):
    """The HTTP request that started a run: its id, its `traceparent` (W3C), and how many gateways it has passed."""

    request_id: str = ""
    traceparent: str = ""
    hops: int = 0

    def agent_context(self, deadline: datetime, tenant: str = DEFAULT_TENANT) -> AgentContext:
        """Returns the context of a tenant's call for this request."""
        return AgentContext(
            deadline, request_id=self.request_id, traceparent=self.traceparent, tenant=tenant, hops=self.hops
        )


class Agent(Protocol):
    """Answers a request by a sequence of events that ends with a `Reply`.

    Raises one of the errors of `sevenfold.contracts.agents.errors`; any other exception becomes `AgentFailed`.
    """

    def run(self, request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]: ...
