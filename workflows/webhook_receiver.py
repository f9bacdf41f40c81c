"""A receiver that fails: for how long, and whether it is spared new deliveries."""

from datetime import timedelta
from typing import NoReturn

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from contracts.webhooks import RECEIVER_STATE, ReceiverState
from workflows.entity import live_on_news

# Sustained failure: so many failures, over so long, and nothing but failures.
_FAILURES = 5
_SUSTAINED = timedelta(hours=12)

_PROBED_EVERY = timedelta(hours=1)

# Longer than any pause of the schedule: nobody tries it any more.
_FORGOTTEN_AFTER = timedelta(hours=48)


@workflow.defn
class WebhookReceiver:
    """Begins with a host's first failed delivery of a tenant, and ends when it takes one or nobody tries it any more.

    While it is `paused`, as its memo tells, new deliveries are dead letters at once but for one in an hour.
    """

    @workflow.init
    def __init__(self, state: ReceiverState) -> None:
        self._state = state
        self._told = 0
        self._answered = False

    @workflow.run
    async def run(self, state: ReceiverState) -> None:
        """Waits for news."""
        if state.failing_since is not None:
            self._show()
        await live_on_news(lambda: self._answered, lambda: self._told, _FORGOTTEN_AFTER, self._begin_anew)

    def _begin_anew(self) -> NoReturn:
        # what a memo was changed to does not go on by itself
        workflow.continue_as_new(self._state, memo={RECEIVER_STATE: self._state})

    @workflow.signal(description="A delivery failed.")
    def failed(self) -> None:
        """Sent after every attempt that failed."""
        before, now = self._state, workflow.now()
        since = before.failing_since or now
        failures = min(before.failures + 1, _FAILURES)
        paused = before.paused or (failures == _FAILURES and now - since >= _SUSTAINED)
        self._state = before.model_copy(update={"failing_since": since, "failures": failures, "paused": paused})
        if paused != before.paused or before.failing_since is None:
            self._show()
        self._told += 1

    @workflow.signal(description="Forgets its failures: deliveries go on.")
    def answered(self) -> None:
        """Sent when it took a delivery; also by hand, to have it tried again."""
        self._answered = True

    @workflow.update(description="Lets a new delivery be tried now: one in an hour while it is paused.")
    def admit(self) -> None:
        """Counts the one that is admitted. Under the same update id the same delivery is admitted again."""
        if self._state.paused:
            self._state = self._state.model_copy(update={"probed_at": workflow.now()})

    @admit.validator
    def _may_be_tried(self) -> None:
        # A refusal by the validator leaves nothing in the history, however many ask.
        probed_at = self._state.probed_at
        if not self._state.paused or self._answered or probed_at is None:
            return
        if workflow.now() - probed_at < _PROBED_EVERY:
            raise ApplicationError("One delivery in an hour is tried, and that one was.", type="ReceiverPaused")

    def _show(self) -> None:
        workflow.upsert_memo({RECEIVER_STATE: self._state})
        workflow.set_current_details(
            f"Has failed every delivery since {self._state.failing_since:%Y-%m-%d %H:%M} UTC."
            + (" **Paused**: one an hour is tried." if self._state.paused else "")
        )
