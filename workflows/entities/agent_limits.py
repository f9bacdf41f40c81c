"""Concurrency and rate limits of one agent, tenant or key, divided between the processes that call."""

from datetime import timedelta

from temporalio import workflow

from sevenfold.contracts import workflow_types
from sevenfold.contracts.agents.limits import LEASE_SECONDS, LeaseGrant, LeaseRequest, Limits, LimitsState
from sevenfold.workflows.entities.limit_allocation import allocate, seconds_until_full

_IDLE_TIMEOUT = timedelta(seconds=3 * LEASE_SECONDS)


@workflow.defn(name=workflow_types.AGENT_LIMITS)
class AgentLimits:
    """Starts with the first process that calls. Completes after three lease periods without a renewal, and not before
    the tokens of the rate are as many as the burst: a new execution would begin with that many.
    """

    @workflow.init
    def __init__(self, state: LimitsState) -> None:
        self._state = state
        self._request_count = 0
        self._idle_timeout = _IDLE_TIMEOUT

    @workflow.run
    async def run(self, state: LimitsState) -> None:
        """Serves `renew_lease` until no process renews."""
        seen = -1
        while seen != self._request_count:
            seen = self._request_count
            try:
                await workflow.wait_condition(
                    workflow.info().is_continue_as_new_suggested, timeout=self._idle_timeout
                )
            except TimeoutError:
                continue
            await workflow.wait_condition(workflow.all_handlers_finished)
            workflow.continue_as_new(self._state)
        await workflow.wait_condition(workflow.all_handlers_finished)

    @workflow.update(name="renew_lease", description="Renews a process's share of the limits.")
    def renew_lease(self, request: LeaseRequest) -> LeaseGrant:
        """Returns the process's share, which expires after `LEASE_SECONDS` unless it is renewed."""
        self._request_count += 1
        grant, self._state = allocate(request, self._state, workflow.now().timestamp())
        refill = timedelta(seconds=LEASE_SECONDS + seconds_until_full(request, self._state))
        self._idle_timeout = max(_IDLE_TIMEOUT, refill)
        self._set_details(request.limits)
        return grant

    def _set_details(self, limits: Limits) -> None:
        lines = [
            f"- {process}: {one.slots} concurrent calls, {one.rate:.3g} calls/s, demand {one.demand}"
            for process, one in sorted(self._state.allocations.items())
        ]
        workflow.set_current_details(
            f"Limits: {limits.max_concurrency or 'unlimited'} concurrent calls, "
            f"{limits.rate or 'unlimited'} calls/s.\n\n" + "\n".join(lines)
        )
