"""What a context without a run has in place of a durable call: steps are executed, and nothing is kept."""

from collections import Counter
from contextvars import ContextVar
from typing import Any

from pydantic_core import to_jsonable_python

from sevenfold.contracts.agents.step_runner import StepStart


class UnrecordedCall:
    """For tests of agents, which need no server, and where nothing can be kept."""

    def __init__(self) -> None:
        self.in_step: ContextVar[bool] = ContextVar("in_step", default=False)
        self._occurrences: Counter[str] = Counter()

    def is_main_task(self) -> bool:
        """Nothing depends on it."""
        return False

    async def begin_step(self, name: str, key: str | None, *, is_main: bool = False) -> StepStart:
        """Begins the step."""
        self._occurrences[name] += 1
        own = key or f"{name}#{self._occurrences[name]}"
        return StepStart(self._occurrences.total(), name, own, idempotency_key=f"unrecorded-{own}")

    async def end_step(self, start: StepStart, result: Any, failure: tuple[str, str] | None) -> Any:
        """Returns the result as JSON has it."""
        return to_jsonable_python(result)

    async def abandon_step(self, start: StepStart) -> None:
        """Nothing was kept."""

    async def ask(self, question: dict[str, Any]) -> Any:
        """Raises RuntimeError."""
        raise RuntimeError("Nobody can answer: this context belongs to no run.")
