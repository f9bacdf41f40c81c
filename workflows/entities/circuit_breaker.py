"""Circuit breaker of one agent. The workflow exists only while the circuit is open or half-open."""

from datetime import timedelta
from typing import NoReturn

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from sevenfold.contracts import workflow_types
from sevenfold.contracts.agents.circuits import CIRCUIT_MEMO, OpenCircuit
from sevenfold.workflows.entities.entity_loop import run_entity_loop

# After a day without a transition no process calls the agent; the next call starts with a closed circuit.
_IDLE_TIMEOUT = timedelta(hours=24)


@workflow.defn(name=workflow_types.CIRCUIT_BREAKER)
class CircuitBreaker:
    """Starts when a process opens the circuit and completes when a probe succeeds. Processes read its state from its
    memo, which needs no worker.

    States: open (no probe; calls are refused until `probe_after`), half-open (`probe_id` is the one admitted call),
    closed (the workflow has completed).
    """

    @workflow.init
    def __init__(self, state: OpenCircuit) -> None:
        self._state = state
        self._is_closed = False
        self._change_count = 0

    @workflow.run
    async def run(self, state: OpenCircuit) -> None:
        """Waits for transitions until the circuit closes, or for 24 h without a transition."""
        self._publish_state()
        await run_entity_loop(
            lambda: self._is_closed, lambda: self._change_count, _IDLE_TIMEOUT, self._continue_as_new
        )

    def _continue_as_new(self) -> NoReturn:
        workflow.continue_as_new(self._state, memo={CIRCUIT_MEMO: self._state})

    @workflow.update(name="acquire_probe", description="Admits one call as a probe once the open period is over.")
    def acquire_probe(self, probe_id: str) -> None:
        """Half-opens the circuit for the call `probe_id`. Repeated with the same id, it admits the same call again.

        The validator rejects with `ProbeDenied` before `probe_after` and while another probe is in flight.
        """
        self._state = self._state.model_copy(update={"probe_id": probe_id, "probe_started_at": workflow.now()})
        self._publish_state()

    @acquire_probe.validator
    def _validate_probe(self, probe_id: str) -> None:
        # A rejected update writes no event to the history, however many processes ask.
        now, state = workflow.now(), self._state
        too_early = now < state.probe_after
        other = state.probe_id != probe_id and state.is_being_probed(now)
        if too_early or other or self._is_closed:
            raise ApplicationError("The circuit admits no probe now.", type="ProbeDenied")

    @workflow.signal(name="probe_failed", description="The probe failed: the circuit opens for longer.")
    def probe_failed(self, probe_id: str) -> None:
        """Opens the circuit for longer. Ignored if `probe_id` is not the current probe."""
        if probe_id == self._state.probe_id:
            self._state = self._state.reopened(workflow.now())
            self._publish_state()

    @workflow.signal(
        name="release_probe", description="The probe ended without a result: the next call may be a probe."
    )
    def release_probe(self, probe_id: str) -> None:
        """Sent when the probe was cancelled. Ignored if `probe_id` is not the current probe."""
        if probe_id == self._state.probe_id:
            self._state = self._state.model_copy(update={"probe_id": None, "probe_started_at": None})
            self._publish_state()

    @workflow.signal(name="close", description="Closes the circuit: calls reach the agent again.")
    def close(self) -> None:
        """Sent when a probe succeeded; also by hand, when you know that the agent has recovered."""
        self._is_closed = True

    def _publish_state(self) -> None:
        self._change_count += 1
        workflow.upsert_memo({CIRCUIT_MEMO: self._state})
        state = self._state
        phase = (
            "half-open: one probe is in flight" if state.probe_id else f"open until {state.probe_after:%H:%M:%S} UTC"
        )
        workflow.set_current_details(
            f"The circuit opened at {state.opened_at:%Y-%m-%d %H:%M:%S} UTC and is {phase}.\n\n"
            "The signal `close` closes it at once."
        )
