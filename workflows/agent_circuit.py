"""An agent's circuit: a run for as long as the agent is down, told of by transitions only."""

from datetime import timedelta
from typing import NoReturn

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from contracts.circuits import CIRCUIT_STATE, CircuitState
from workflows.entity import live_on_news

# Nobody calls it any more: whoever does after that finds out anew.
_FORGOTTEN_AFTER = timedelta(hours=24)


@workflow.defn
class AgentCircuit:
    """Begins when a process finds the agent failing, and ends when a probe has succeeded. Its memo is what processes
    read, without a worker.
    """

    @workflow.init
    def __init__(self, state: CircuitState) -> None:
        self._state = state
        self._closed = False
        self._told = 0

    @workflow.run
    async def run(self, state: CircuitState) -> None:
        """Waits for news."""
        self._show()
        await live_on_news(lambda: self._closed, lambda: self._told, _FORGOTTEN_AFTER, self._begin_anew)

    def _begin_anew(self) -> NoReturn:
        workflow.continue_as_new(self._state, memo={CIRCUIT_STATE: self._state})

    @workflow.update(description="Lets one call through to an agent that was left alone for long enough.")
    def admit(self, probe: str) -> None:
        """`probe` names the call; under the same name it is admitted again."""
        self._state = self._state.model_copy(update={"probe": probe, "probing_since": workflow.now()})
        self._show()

    @admit.validator
    def _may_be_probed(self, probe: str) -> None:
        # A refusal by the validator leaves nothing in the history, however many ask.
        now, state = workflow.now(), self._state
        too_early = now < state.until
        other = state.probe != probe and state.probed(now)
        if too_early or other or self._closed:
            raise ApplicationError("Not now.", type="NoProbe")

    @workflow.signal(description="The call that was let through failed.")
    def probe_failed(self, probe: str) -> None:
        """Opens it for longer. One that was given up meanwhile changes nothing."""
        if probe == self._state.probe:
            self._state = self._state.opened_again(workflow.now())
            self._show()

    @workflow.signal(description="The call that was let through told nothing of the agent: another may be.")
    def probe_given_up(self, probe: str) -> None:
        """Sent when it was cancelled."""
        if probe == self._state.probe:
            self._state = self._state.model_copy(update={"probe": None, "probing_since": None})
            self._show()

    @workflow.signal(description="Closes it: the agent is called again.")
    def close(self) -> None:
        """Sent when a probe succeeded; also by hand, when you know that the agent is well."""
        self._closed = True

    def _show(self) -> None:
        self._told += 1
        workflow.upsert_memo({CIRCUIT_STATE: self._state})
        state = self._state
        doing = "is being probed" if state.probe else f"is left alone until {state.until:%H:%M:%S} UTC"
        workflow.set_current_details(
            f"The agent has failed since {state.opened_at:%Y-%m-%d %H:%M:%S} UTC, and {doing}.\n\n"
            "The signal `close` has it called again at once."
        )
