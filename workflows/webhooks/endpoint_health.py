"""A receiver that fails: for how long, and whether it is spared new deliveries."""

from datetime import timedelta
from typing import NoReturn

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from sevenfold.contracts.webhooks import ENDPOINT_MEMO, EndpointState
from sevenfold.workflows.entities.entity_loop import run_entity_loop

# Sustained failure: so many failures, over so long, and nothing but failures.
_MIN_FAILURES = 5
_MIN_FAILURE_PERIOD = timedelta(hours=12)

_PROBE_INTERVAL = timedelta(hours=1)

# Longer than any pause of the schedule: nobody tries it any more.
_IDLE_TIMEOUT = timedelta(hours=48)


@workflow.defn(name="EndpointHealth")
class EndpointHealth:
    """Begins with a host's first failed delivery of a tenant, and ends when it takes one or nobody tries it any more.

    While it is `is_paused`, as its memo tells, new deliveries are dead letters at once but for one in an hour.
    """

    @workflow.init
    def __init__(self, state: EndpointState) -> None:
        self._state = state
        self._change_count = 0
        self._has_recovered = False

    @workflow.run
    async def run(self, state: EndpointState) -> None:
        """Waits for news."""
        if state.failing_since is not None:
            self._publish_state()
        await run_entity_loop(
            lambda: self._has_recovered, lambda: self._change_count, _IDLE_TIMEOUT, self._continue_as_new
        )

    def _continue_as_new(self) -> NoReturn:
        # what a memo was changed to does not go on by itself
        workflow.continue_as_new(self._state, memo={ENDPOINT_MEMO: self._state})

    @workflow.signal(name="record_failure", description="A delivery failed.")
    def record_failure(self) -> None:
        """Sent after every attempt that failed."""
        before, now = self._state, workflow.now()
        since = before.failing_since or now
        failures = min(before.failures + 1, _MIN_FAILURES)
        is_paused = before.is_paused or (failures == _MIN_FAILURES and now - since >= _MIN_FAILURE_PERIOD)
        self._state = before.model_copy(update={"failing_since": since, "failures": failures, "is_paused": is_paused})
        if is_paused != before.is_paused or before.failing_since is None:
            self._publish_state()
        self._change_count += 1

    @workflow.signal(name="record_success", description="Forgets its failures: deliveries go on.")
    def record_success(self) -> None:
        """Sent when it took a delivery; also by hand, to have it tried again."""
        self._has_recovered = True

    @workflow.update(
        name="acquire_probe", description="Lets a new delivery be tried now: one in an hour while it is paused."
    )
    def acquire_probe(self) -> None:
        """Counts the one that is admitted. Under the same update id the same delivery is admitted again."""
        if self._state.is_paused:
            self._state = self._state.model_copy(update={"probed_at": workflow.now()})

    @acquire_probe.validator
    def _validate_probe(self) -> None:
        # A refusal by the validator leaves nothing in the history, however many ask.
        probed_at = self._state.probed_at
        if not self._state.is_paused or self._has_recovered or probed_at is None:
            return
        if workflow.now() - probed_at < _PROBE_INTERVAL:
            raise ApplicationError("One delivery in an hour is tried, and that one was.", type="EndpointPaused")

    def _publish_state(self) -> None:
        workflow.upsert_memo({ENDPOINT_MEMO: self._state})
        workflow.set_current_details(
            f"Has failed every delivery since {self._state.failing_since:%Y-%m-%d %H:%M} UTC."
            + (" **Paused**: one an hour is tried." if self._state.is_paused else "")
        )
