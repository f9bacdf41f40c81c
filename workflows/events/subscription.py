"""One subscription that was created by the API. The workflow runs until the subscription is removed."""

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from sevenfold.contracts.subscriptions import SUBSCRIPTION_MEMO, SUBSCRIPTION_MISSING, Subscription


@workflow.defn(name="StoredSubscription")
class StoredSubscription:
    """Keeps the subscription in its memo, so that reading it needs no worker."""

    @workflow.init
    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._removed = False
        self._renew_requested = False

    @workflow.run
    async def run(self, subscription: Subscription) -> None:
        """Serves updates; continues as new when Temporal suggests it, and on `renew`."""
        await workflow.wait_condition(lambda: self._removed or self._is_to_continue)
        await workflow.wait_condition(workflow.all_handlers_finished)
        if not self._removed:
            workflow.continue_as_new(self._subscription, memo={SUBSCRIPTION_MEMO: self._subscription})

    @property
    def _is_to_continue(self) -> bool:
        return self._renew_requested or workflow.info().is_continue_as_new_suggested()

    @workflow.signal(name="renew", description="Encrypts state and memo with the first codec key.")
    def renew(self) -> None:
        """Sent at the start of a process whose first codec key is another one: continues as new."""
        self._renew_requested = True

    @workflow.update(name="replace", description="Replaces the subscription by another one of its name.")
    def replace(self, subscription: Subscription) -> None:
        """Later events match the new one. The validator rejects with `SUBSCRIPTION_MISSING`: it was just removed."""
        if subscription != self._subscription:
            self._subscription = subscription
            workflow.upsert_memo({SUBSCRIPTION_MEMO: subscription})

    @replace.validator
    def _validate_replace(self, subscription: Subscription) -> None:
        self._check_not_removed()

    @workflow.update(name="remove", description="Removes the subscription; the workflow ends.")
    def remove(self) -> None:
        """Later events do not match it. The validator rejects with `SUBSCRIPTION_MISSING`."""
        self._removed = True

    @remove.validator
    def _validate_remove(self) -> None:
        self._check_not_removed()

    def _check_not_removed(self) -> None:
        if self._removed:
            raise ApplicationError(
                f"Subscription {self._subscription.name} does not exist.", type=SUBSCRIPTION_MISSING
            )
