"""What makes a call of an agent durable: the steps and the questions of its run."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from temporalio.service import RPCError

from sevenfold.activities.runs.durable_values import HistoryBudget, Store, load_steps, to_json_result
from sevenfold.activities.runs.question_builder import QuestionBuilder
from sevenfold.activities.runs.step_keys import StepKeys
from sevenfold.adapters.temporal.step_store import RunEndedError
from sevenfold.contracts.agents.asking import Suspended
from sevenfold.contracts.agents.errors import AgentRejected, AgentUnavailable, StepMismatch
from sevenfold.contracts.agents.questions import (
    MAX_QUESTIONS,
    Answer,
    Question,
    to_agent_answers,
)
from sevenfold.contracts.agents.step_runner import StepStart
from sevenfold.contracts.agents.steps import (
    MAX_STEPS,
    RunningStep,
    StepFailure,
    StepRecord,
    StreamMark,
)

# Questions that are asked concurrently, as by asyncio.gather, are collected for this many turns of the event loop.
_SETTLE_TURNS = 5


# How long an agent may clean up after it has asked.
_END_SECONDS = 30.0

# What an agent behind HTTP gets of each step.
_SENT = {"name", "key", "result", "failure"}


@dataclass(frozen=True)
class DurableTerms:
    """Which call it is. `answers`: to the questions of earlier turns. `may_ask`: not for the items of a job.
    `build_steps_url` returns where an agent behind HTTP records its steps.
    """

    run_id: str
    attempt: int
    turn: int = 1
    answers: Mapping[str, Answer] = field(default_factory=dict)
    may_ask: bool = True
    build_steps_url: Callable[[], str | None] = lambda: None


@dataclass
class _Step:
    """A step that is executed now."""

    running: RunningStep
    position: int | None
    mark: StreamMark | None


class RunDurableCall:
    """The steps and questions of one call, in this process. All methods run on the event loop.

    A call that was started inline first waits to be adopted: only then are its steps safe from a repeated workflow
    task. `needs_adoption` is set then. What is recorded is read before the first step.
    """

    def __init__(
        self,
        store: Store,
        terms: DurableTerms,
        mark: Callable[[], StreamMark | None] = lambda: None,
        *,
        awaits_adoption: bool = False,
        records: Sequence[StepRecord] | None = None,
    ) -> None:
        self._store = store
        self._terms = terms
        self._mark = mark
        self._answers = to_agent_answers(terms.answers)
        self._questions = QuestionBuilder(self._answers)
        self._budget = HistoryBudget()
        self._records: dict[str, StepRecord] = {}
        self._is_loaded = False
        if records is not None:
            self._take_over(records)
        self._loading: asyncio.Task[None] | None = None
        self._running: dict[str, _Step] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._requested: set[str] = set()
        self._keys = StepKeys()
        self._position = 0
        self._asked: dict[str, Question] = {}
        self._suspending: asyncio.Task[None] | None = None
        self._has_ended = False
        self.in_step: ContextVar[bool] = ContextVar("in_step", default=False)
        self._main_task: asyncio.Task[Any] | None = None
        self.needs_adoption = asyncio.Event()
        self._adopted = asyncio.Event()
        if not awaits_adoption:
            self._adopted.set()

    def start(self, main_task: "asyncio.Task[Any]") -> None:
        """Sets the task that runs the agent's own code."""
        self._main_task = main_task

    def close(self) -> None:
        """The call ends, or has ended: what the agent has left behind, such as tasks and threads, gets Suspended, and
        executes no further step.
        """
        self._has_ended = True

    def confirm_adoption(self) -> None:
        """An activity has adopted the call."""
        self._adopted.set()

    @property
    def running_steps(self) -> list[RunningStep]:
        """The steps that are executed now."""
        return [one.running for one in self._running.values()]

    @property
    def questions(self) -> list[Question]:
        """The questions without an answer. With any the call has to end."""
        return list(self._asked.values())

    @property
    def remote_state(self) -> dict[str, Any]:
        """What an agent behind HTTP gets: the steps so far, the answers, and where it records steps."""
        steps = [one.model_dump(mode="json", by_alias=True, include=_SENT) for one in self._records.values()]
        responses = {key: {"action": one["action"], "content": one["content"]} for key, one in self._answers.items()}
        return {"steps": steps, "responses": responses, "stepsUrl": self._terms.build_steps_url()}

    def is_main_task(self) -> bool:
        """Whether the agent's own code asks, and no task that it has created."""
        return asyncio.current_task() is self._main_task

    async def begin_step(self, name: str, key: str | None, *, is_main: bool = False) -> StepStart:
        """Returns what is recorded of the step, or that it is to be executed. Raises AgentError."""
        await self._raise_if_ended()
        own_key = self._keys.identify(name, key)
        position = None
        if is_main and key is None and not self._running:
            self._position += 1
            position = self._position
        await self._be_ready()
        await self._raise_if_ended()
        self._requested.add(own_key)
        number = len(self._requested)
        idempotency_key = f"{self._terms.run_id}-{hashlib.sha256(own_key.encode()).hexdigest()[:16]}"
        if (record := self._records.get(own_key)) is not None:
            failure = record.failure
            return StepStart(
                number,
                name,
                own_key,
                idempotency_key,
                is_recorded=True,
                result=record.result,
                failure=(failure.type, failure.message) if failure else None,
            )
        self._check_sequence(name, position)
        if own_key in self._running:
            raise AgentRejected(f"Two steps at once have the key {own_key}. Give each its own key.")
        if len(self._records) + len(self._running) >= MAX_STEPS:
            raise AgentRejected(f"A run may have {MAX_STEPS:,} steps.")
        running = RunningStep(key=own_key, name=name, started_at=datetime.now(UTC), attempt=self._terms.attempt)
        self._running[own_key] = _Step(running, position, self._mark())
        self._idle.clear()
        return StepStart(number, name, own_key, idempotency_key)

    async def end_step(self, start: StepStart, result: Any, failure: tuple[str, str] | None) -> Any:
        """Records the step, and returns its result as JSON has it. Raises AgentError."""
        step = self._running[start.key]
        try:
            await self._raise_if_ended()
            record = StepRecord(
                key=start.key,
                name=start.name,
                attempt=self._terms.attempt,
                turn=self._terms.turn,
                started_at=step.running.started_at,
                seconds=max(0.0, (datetime.now(UTC) - step.running.started_at).total_seconds()),
                result=to_json_result(start.name, result),
                failure=StepFailure(type=failure[0][:200], message=failure[1][:2_000]) if failure else None,
                position=step.position,
                mark=step.mark,
            )
            self._budget.count(record)
            self._budget.check()
            await self._keep(record)
        finally:
            self._forget(start.key)
        self._records[record.key] = record
        return record.result

    async def abandon_step(self, start: StepStart) -> None:
        """Forgets a step that failed, but not for good."""
        self._forget(start.key)

    async def ask(self, question: dict[str, Any]) -> Any:
        """Returns the answer; without one, raises Suspended. Raises AgentRejected for an invalid question."""
        await self._raise_if_ended()
        if not self._terms.may_ask:
            raise AgentRejected(
                "An item of a job cannot ask: nobody could answer thousands of them. Start it as a task."
            )
        if question["in_step"]:
            raise AgentRejected("A step cannot ask: it would be executed again with the answer. Ask before it.")
        asked = self._questions.build(question)
        if (answer := self._answers.get(asked.id)) is not None:
            return answer
        await self._be_ready()
        if len(self._asked) >= MAX_QUESTIONS:
            raise AgentRejected(f"A run may ask {MAX_QUESTIONS} questions at once.")
        self._asked.setdefault(asked.id, asked)
        if self._suspending is None:
            self._suspending = asyncio.create_task(self._collect_questions(), name="collects the questions of a run")
        await asyncio.shield(self._suspending)
        raise Suspended

    async def _raise_if_ended(self) -> None:
        if self._has_ended:
            await asyncio.sleep(0)  # so that an agent that loops does not block the event loop
            raise Suspended

    async def _collect_questions(self) -> None:
        """Returns when the questions that are asked at once are all there, and steps under way have ended."""
        for _ in range(_SETTLE_TURNS):
            await asyncio.sleep(0)
        await self._idle.wait()
        self.close()
        if self._main_task is not None:
            # An agent that swallows Suspended must not keep its place until its deadline.
            main = self._main_task
            asyncio.get_running_loop().call_later(_END_SECONDS, lambda: main.done() or main.cancel())

    async def _be_ready(self) -> None:
        if not self._adopted.is_set():
            self.needs_adoption.set()
            await self._adopted.wait()
        if self._is_loaded:
            return
        if self._loading is None:
            self._loading = asyncio.create_task(self._load(), name="reads the steps of a run")
        await asyncio.shield(self._loading)

    async def _load(self) -> None:
        self._take_over(await load_steps(self._store))

    def _take_over(self, records: Sequence[StepRecord]) -> None:
        """Takes the steps of earlier attempts and turns."""
        self._records = {one.key: one for one in records}
        for one in records:
            self._budget.count(one)
        self._is_loaded = True

    async def _keep(self, record: StepRecord) -> None:
        try:
            await self._store.record(record)
        except RunEndedError as error:
            raise AgentRejected("The run has ended, so it takes no more steps.") from error
        except RPCError as error:
            raise AgentUnavailable(f"The step {record.name} cannot be recorded: {error.message}") from error

    def _forget(self, key: str) -> None:
        self._running.pop(key, None)
        if not self._running:
            self._idle.set()

    def _check_sequence(self, name: str, position: int | None) -> None:
        """Raises StepMismatch if an earlier attempt had another step here that this one has not requested."""
        if position is None:
            return
        for record in self._records.values():
            if record.position == position and record.key not in self._requested:
                raise StepMismatch(
                    f"Step {position} of the run was `{record.name}` in an earlier attempt, and is `{name}` now: the "
                    "agent's code was changed, or depends on something that changes, such as time or chance. Make "
                    "that a step, or give the steps keys."
                )
