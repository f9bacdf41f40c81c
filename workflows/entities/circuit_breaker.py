"""An agent's circuit: a run for as long as the agent is down, told of by transitions only."""

from datetime import timedelta
from typing import NoReturn

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from sevenfold.contracts.circuits import CIRCUIT_MEMO, OpenCircuit
from sevenfold.workflows.entities.entity_loop import run_entity_loop

# Nobody calls it any more: whoever does after that finds out anew.
_IDLE_TIMEOUT = timedelta(hours=24)


@workflow.defn(name="CircuitBreaker")
class CircuitBreaker:
    """Begins when a process finds the agent failing, and ends when a probe has succeeded. Its memo is what processes
    read, without a worker.
    """

    @workflow.init
    def __init__(self, state: OpenCircuit) -> None:
        self._state = state
        self._closed = False
        self._change_count = 0

    @workflow.run
    async def run(self, state: OpenCircuit) -> None:
        """Waits for news."""
        self._publish_state()
        await run_entity_loop(lambda: self._closed, lambda: self._change_count, _IDLE_TIMEOUT, self._continue_as_new)

    def _continue_as_new(self) -> NoReturn:
        workflow.continue_as_new(self._state, memo={CIRCUIT_MEMO: self._state})

    @workflow.update(
        name="acquire_probe", description="Lets one call through to an agent that was left alone for long enough."
    )
    def acquire_probe(self, probe_id: str) -> None:
        """`probe_id` names the call; under the same name it is admitted again."""
        self._state = self._state.model_copy(update={"probe_id": probe_id, "probe_started_at": workflow.now()})
        self._publish_state()

    @acquire_probe.validator
    def _validate_probe(self, probe_id: str) -> None:
        # A refusal by the validator leaves nothing in the history, however many ask.
        now, state = workflow.now(), self._state
        too_early = now < state.probe_after
        other = state.probe_id != probe_id and state.is_being_probed(now)
        if too_early or other or self._closed:
            raise ApplicationError("Not now.", type="ProbeDenied")

    @workflow.signal(name="probe_failed", description="The call that was let through failed.")
    def probe_failed(self, probe_id: str) -> None:
        """Opens it for longer. One that was given up meanwhile changes nothing."""
        if probe_id == self._state.probe_id:
            self._state = self._state.reopened(workflow.now())
            self._publish_state()

    @workflow.signal(
        name="release_probe", description="The call that was let through told nothing of the agent: another may be."
    )
    def release_probe(self, probe_id: str) -> None:
        """Sent when it was cancelled."""
        if probe_id == self._state.probe_id:
            self._state = self._state.model_copy(update={"probe_id": None, "probe_started_at": None})
            self._publish_state()

    @workflow.signal(name="close", description="Closes it: the agent is called again.")
    def close(self) -> None:
        """Sent when a probe succeeded; also by hand, when you know that the agent is well."""
        self._closed = True

    def _publish_state(self) -> None:
        self._change_count += 1
        workflow.upsert_memo({CIRCUIT_MEMO: self._state})
        state = self._state
        doing = "is being probed" if state.probe_id else f"is left alone until {state.probe_after:%H:%M:%S} UTC"
        workflow.set_current_details(
            f"The agent has failed since {state.opened_at:%Y-%m-%d %H:%M:%S} UTC, and {doing}.\n\n"
            "The signal `close` has it called again at once."
        )
