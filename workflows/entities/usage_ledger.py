"""A tenant's usage of agents in one month: sums by day, agent and key."""

from datetime import timedelta

from temporalio import workflow

from sevenfold.contracts import workflow_types
from sevenfold.contracts.agents.usage import LedgerState, UsageFlush, changed_memos, ledger_memos


@workflow.defn(name=workflow_types.USAGE_LEDGER)
class UsageLedger:
    """Keeps its sums in memos. Ends when its last day is older than `KEPT_DAYS`."""

    @workflow.init
    def __init__(self, state: LedgerState) -> None:
        self._state = state
        self._renew_requested = False

    @workflow.run
    async def run(self, state: LedgerState) -> None:
        """Takes flushes; continues as new when Temporal suggests it, and on `renew`."""
        remaining = max(state.ends_at - workflow.now(), timedelta())
        try:
            await workflow.wait_condition(
                lambda: self._renew_requested or workflow.info().is_continue_as_new_suggested(), timeout=remaining
            )
        except TimeoutError:
            return
        workflow.continue_as_new(self._state, memo=ledger_memos(self._state))

    @workflow.signal(name="renew", description="Encrypts state and memos with the first codec key.")
    def renew(self) -> None:
        """Sent at the start of a process whose first codec key is another one: continues as new."""
        self._renew_requested = True

    @workflow.signal(name="record", description="Adds what one process counted.")
    def record(self, flush: UsageFlush) -> None:
        """Idempotent: a repeated flush changes nothing."""
        before, self._state = self._state, self._state.record(flush)
        if self._state is not before:
            workflow.upsert_memo(changed_memos(before, self._state))
