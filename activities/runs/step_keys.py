"""Identifies the steps of a call: the same step has the same key in every attempt and turn of its run."""

from collections import Counter

from sevenfold.contracts.agents.errors import AgentRejected
from sevenfold.contracts.agents.steps import MAX_STEP_NAME


class StepKeys:
    """A step without a key of its own is identified by its name and how often that has occurred."""

    def __init__(self) -> None:
        self._occurrences: Counter[str] = Counter()

    def identify(self, name: str, key: str | None) -> str:
        """Returns the key within the run. Raises AgentRejected."""
        if not isinstance(name, str) or not 0 < len(name) <= MAX_STEP_NAME:
            raise AgentRejected(f"A step needs a name of 1 to {MAX_STEP_NAME} characters.")
        if key is not None:
            if not isinstance(key, str) or not 0 < len(key) <= MAX_STEP_NAME:
                raise AgentRejected(f"The key of the step {name} is not a text of 1 to {MAX_STEP_NAME} characters.")
            return f"{name}[{key}]"
        self._occurrences[name] += 1
        count = self._occurrences[name]
        return name if count == 1 else f"{name}#{count}"
