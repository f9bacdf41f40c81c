"""The steps of a run as its workflow sees them: it keeps none of their results, which are in the history."""

from collections.abc import Callable

from temporalio import workflow

from sevenfold.contracts.agents.steps import STEP_SIGNAL, STEPS_MEMO, StepRecord

# Maximum number of steps that the Temporal UI shows.
_SHOWN = 50


class RunSteps:
    """Handles the signal `step`: marks the run as one with steps, and describes them in its current details."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._count = 0
        self._keys: set[str] = set()
        self._lines: list[str] = []
        workflow.set_signal_handler(STEP_SIGNAL, self._handle)

    def _handle(self, record: StepRecord) -> None:
        if record.key in self._keys:
            return
        if not self._keys:
            workflow.upsert_memo({STEPS_MEMO: True})
        self._keys.add(record.key)
        self._count += 1
        cells = (record.key, record.status, str(record.attempt), f"{record.seconds:.2f} s")
        self._lines = [*self._lines, f"| {' | '.join(one.replace('|', '/') for one in cells)} |"][-_SHOWN:]
        self._on_change()

    def describe(self) -> str:
        """Returns a table in Markdown; empty without steps."""
        if not self._count:
            return ""
        more = f"\n\n{self._count - len(self._lines)} earlier steps" if self._count > len(self._lines) else ""
        return "\n\n| step | status | attempt | took |\n|---|---|---|---|\n" + "\n".join(self._lines) + more
