"""How a broker's message starts a run, and how its outcome goes back as a reply."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from sevenfold.contracts.agents.interface import AgentName
from sevenfold.contracts.messages.maps import BodyFormat, MapValue, MessageFormat
from sevenfold.contracts.payload import Payload
from sevenfold.contracts.runs.requests import MAX_COST, MAX_TOKENS, TaskName
from sevenfold.contracts.sections import ConfigSection

# What a value of a reply's map may refer to: the outcome, as webhooks have it.
REPLY = "$reply"

# The `source` of events that are replies; and their attribute for the outcome: a result or an error.
REPLIES_SOURCE = "/sevenfold/replies"
OUTCOME_ATTRIBUTE = "outcome"
RESULT, ERROR = "result", "error"


class MessagePattern(StrEnum):
    """The patterns that a message can start."""

    QUEUE = "queue"
    POLLING = "polling"
    ANALYZE = "analyze"
    HYBRID = "hybrid"


class StartConfig(ConfigSection):
    """The run that each message starts. `source` (`from`): a JSON Pointer to what the agent works on, by default the
    whole body; text is the query, an object the pattern's data. Without `id`, or where it leads to nothing, the
    message's place at the broker identifies the run, so that a redelivery starts none. `timeout`: of the run, in
    seconds.
    """

    pattern: MessagePattern
    """`queue`, `polling`, `analyze` or `hybrid`"""
    agent: AgentName | None = None
    """agent to call; unset: the default agent"""
    task: TaskName | None = None
    """its task; `queue` and `polling` need one"""
    source: str = Field(default="", alias="from", pattern=r"^(/.*)?$", max_length=1_024)
    """JSON Pointer to what the agent works on: text is the query, an object the data; empty: the whole body"""
    id: MapValue | None = None
    """identifies the run; unset: the message's place at the broker, so that a redelivery starts none"""
    format: BodyFormat = BodyFormat.JSON
    """what a message's body is: `json` or `text`"""
    timeout: Annotated[float, Field(ge=0.5, le=86_400, allow_inf_nan=False)] = 3_600.0
    """deadline of the run in seconds, 0.5 to 86,400"""
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_TOKENS)
    """tokens that the run may use in all"""
    max_cost: float | None = Field(default=None, gt=0, le=MAX_COST, allow_inf_nan=False)
    """US dollars that the run may cost, for an agent with a `price`"""

    @model_validator(mode="after")
    def _check(self) -> "StartConfig":
        if self.format is BodyFormat.BYTES:
            raise ValueError("format: an agent takes json or text")
        if self.task is None and self.pattern in (MessagePattern.QUEUE, MessagePattern.POLLING):
            raise ValueError(f"task is missing: the pattern {self.pattern} needs one")
        return self


def _check_reply_value(value: str) -> str:
    if value.startswith(REPLY) and value != REPLY and not value.startswith(f"{REPLY}/"):
        raise ValueError(f"{value} begins like a reference: write {REPLY}/… , or another constant")
    return value


ReplyValue = Annotated[str, Field(max_length=1_024), AfterValidator(_check_reply_value)]


class ReplyConfig(ConfigSection):
    """What a reply looks like. With `map` it is plain JSON: `$reply` and `$reply/…` refer to the outcome, anything
    else is a constant.
    """

    format: MessageFormat = MessageFormat.CLOUDEVENTS
    """`cloudevents`, or `plain`"""
    map: dict[str, ReplyValue] | None = None
    """makes a reply plain JSON: `$reply` and `$reply/…` refer to the outcome, anything else is a constant"""

    @property
    def is_plain(self) -> bool:
        """Whether it is a plain message."""
        return self.map is not None or self.format is MessageFormat.PLAIN


class ReplyAddress(Payload):
    """Where a run's outcome goes. `to`: an address of the broker; None: the outcome is an event for the routes.
    `is_sender_chosen`: the message named it, so that nothing is created there, and what is missing is not waited for.
    `is_plain` and `map` as configured. `task_queue`: of the workers that make it an event.
    """

    broker: str
    task_queue: str
    to: str | None = None
    is_sender_chosen: bool = False
    correlation_id: str = ""
    is_plain: bool = False
    map: dict[str, str] | None = None


class ReplyInput(Payload):
    """Input of `RunReply`. `generation`: the run's, each of which has a reply of its own."""

    run_workflow_id: str
    address: ReplyAddress
    generation: int = 1
    traceparent: str = ""
