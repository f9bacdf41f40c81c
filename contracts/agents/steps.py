"""Steps of a durable agent: what a run keeps of each, and how an agent's call reaches what keeps them."""

from collections.abc import Sequence
from contextvars import ContextVar
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from pydantic import JsonValue

from sevenfold.contracts.agents.step_runner import StepStart
from sevenfold.contracts.payload import Payload, Seconds

# The signal by which a step is recorded, and the memo of runs that have any.
STEP_SIGNAL = "step"
STEPS_MEMO = "steps"

MAX_STEPS = 1_000
MAX_STEP_NAME = 200
MAX_STEP_BYTES = 2_000_000


class StepStatus(StrEnum):
    """State of a step. `failed`: for good."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class StepFailure(Payload):
    """Why a step failed: the type of the exception and its message."""

    type: str
    message: str = ""


class StreamMark(Payload):
    """How far the agent's text was: its bytes in UTF-8, their hash, and the last index that readers had (0: none)."""

    size: int
    digest: str
    index: int


class StepRecord(Payload):
    """A step that has ended. `key` identifies it within its run. `position`: its number among the steps that the
    agent's own code called one after the other, without a key; None for others. `mark`: the agent's text before it.
    """

    key: str
    name: str
    attempt: int
    turn: int = 1
    started_at: datetime
    seconds: Seconds
    result: JsonValue = None
    failure: StepFailure | None = None
    position: int | None = None
    mark: StreamMark | None = None

    @property
    def status(self) -> StepStatus:
        """Whether it has completed, or failed for good."""
        return StepStatus.COMPLETED if self.failure is None else StepStatus.FAILED


def find_mark(records: Sequence[StepRecord] | None) -> StreamMark | None:
    """Returns the furthest mark of the steps, if one has any."""
    return max((one.mark for one in records or () if one.mark), key=lambda one: one.size, default=None)


class RunningStep(Payload):
    """A step that a call is executing, for its heartbeat."""

    key: str
    name: str
    started_at: datetime
    attempt: int


class StepView(Payload):
    """A step as the API shows it, without its result."""

    name: str
    key: str
    status: StepStatus
    started_at: datetime
    seconds: Seconds | None = None
    attempt: int


def view_steps(records: Sequence[StepRecord], running: Sequence[RunningStep]) -> list[StepView]:
    """Returns the steps in the order in which they started."""
    ended = {one.key for one in records}
    views = [
        StepView(
            name=one.name,
            key=one.key,
            status=one.status,
            started_at=one.started_at,
            seconds=one.seconds,
            attempt=one.attempt,
        )
        for one in records
    ]
    views += [
        StepView(
            name=one.name, key=one.key, status=StepStatus.RUNNING, started_at=one.started_at, attempt=one.attempt
        )
        for one in running
        if one.key not in ended
    ]
    return sorted(views, key=lambda one: one.started_at)


class DurableCall(Protocol):
    """What makes one call of an agent durable: it keeps the steps and the questions of the run. `in_step`: a step is
    executed where this is true.
    """

    in_step: ContextVar[bool]

    def is_main_task(self) -> bool:
        """Whether the current task is the agent's own, and none that it has created."""
        ...

    async def begin_step(self, name: str, key: str | None, *, is_main: bool = False) -> StepStart:
        """Returns what is recorded of the step, or that it is to be executed. Raises AgentError."""
        ...

    async def end_step(self, start: StepStart, result: Any, failure: tuple[str, str] | None) -> Any:
        """Records a step durably, and returns its result as JSON has it. Raises AgentError."""
        ...

    async def abandon_step(self, start: StepStart) -> None:
        """Forgets a step that failed, but not for good."""
        ...

    async def ask(self, question: dict[str, Any]) -> Any:
        """Returns what a person has answered. Does not return if there is no answer yet: the call ends."""
        ...
