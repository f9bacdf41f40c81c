"""Health of a failing host of webhooks: how long it has failed, and whether new deliveries are paused.

It counts deliveries to URLs that came with a request. `WebhookEndpoints` counts those of stored endpoints, by the
same rule.
"""

from datetime import timedelta
from typing import NoReturn

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from sevenfold.contracts import workflow_types
from sevenfold.contracts.webhooks.delivery import ENDPOINT_MEMO, EndpointState
from sevenfold.workflows.entities.entity_loop import run_entity_loop

# A host is paused when it has failed for this long without a success.
_PAUSE_AFTER = timedelta(hours=12)

_PROBE_INTERVAL = timedelta(hours=1)

# Longer than any delay of the schedule: no delivery is open any more.
_IDLE_TIMEOUT = timedelta(hours=48)


@workflow.defn(name=workflow_types.ENDPOINT_HEALTH)
class EndpointHealth:
    """Starts with a tenant's first failed delivery to a host, and completes when a delivery succeeds or after 48 h
    without a change.

    While `is_paused` is set in its memo, new deliveries fail at once as dead letters, except for one probe an hour.
    """

    @workflow.init
    def __init__(self, state: EndpointState) -> None:
        self._state = state
        self._change_count = 0
        self._has_recovered = False

    @workflow.run
    async def run(self, state: EndpointState) -> None:
        """Waits for reports until the endpoint recovers."""
        if state.failing_since is not None:
            self._publish_state()
        await run_entity_loop(
            lambda: self._has_recovered, lambda: self._change_count, _IDLE_TIMEOUT, self._continue_as_new
        )

    def _continue_as_new(self) -> NoReturn:
        # Continue-as-new does not carry an upserted memo over.
        workflow.continue_as_new(self._state, memo={ENDPOINT_MEMO: self._state})

    @workflow.signal(name="record_failure", description="A delivery failed.")
    def record_failure(self) -> None:
        """Sent after every failed attempt."""
        before, now = self._state, workflow.now()
        failed = before.after_failure(now)
        is_paused = before.is_paused or failed.has_failed_for(_PAUSE_AFTER, now)
        self._state = failed.model_copy(update={"is_paused": is_paused})
        if is_paused != before.is_paused or before.failing_since is None:
            self._publish_state()
        self._change_count += 1

    @workflow.signal(name="record_success", description="Resets the failures: deliveries resume.")
    def record_success(self) -> None:
        """Sent after a successful delivery; also by hand, to resume deliveries."""
        self._has_recovered = True

    @workflow.update(
        name="acquire_probe", description="Admits a new delivery: one an hour while the endpoint is paused."
    )
    def acquire_probe(self) -> None:
        """Admits one probe an hour while paused. Repeated with the same update id, it admits the same delivery
        again.
        """
        if self._state.is_paused:
            self._state = self._state.model_copy(update={"probed_at": workflow.now()})

    @acquire_probe.validator
    def _validate_probe(self) -> None:
        # A rejected update writes no event to the history, however many deliveries ask.
        probed_at = self._state.probed_at
        if not self._state.is_paused or self._has_recovered or probed_at is None:
            return
        if workflow.now() - probed_at < _PROBE_INTERVAL:
            raise ApplicationError(
                "The endpoint is paused and has had its one probe of this hour.", type="EndpointPaused"
            )

    def _publish_state(self) -> None:
        workflow.upsert_memo({ENDPOINT_MEMO: self._state})
        workflow.set_current_details(
            f"Every delivery has failed since {self._state.failing_since:%Y-%m-%d %H:%M} UTC."
            + (" **Paused**: one probe an hour." if self._state.is_paused else "")
        )
