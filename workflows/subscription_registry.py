"""The subscriptions that the API keeps: one workflow for each tenant, for ever."""

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from contracts.subscriptions import (
    EXISTS,
    FULL,
    MISSING,
    MOST_REGISTRY_BYTES,
    SUBSCRIPTION_MEMO,
    RegistryState,
    Subscription,
    SubscriptionChange,
    subscription_memos,
)


@workflow.defn
class SubscriptionRegistry:
    """Its memos hold what it keeps, one for each subscription, so that it is read without a worker."""

    @workflow.init
    def __init__(self, state: RegistryState) -> None:
        self._state = state

    @workflow.run
    async def run(self, state: RegistryState) -> None:
        """Waits for changes."""
        await workflow.wait_condition(lambda: workflow.info().is_continue_as_new_suggested())
        await workflow.wait_condition(workflow.all_handlers_finished)
        workflow.continue_as_new(self._state, memo=subscription_memos(self._state))

    @workflow.update(description="Keeps a subscription.")
    def put(self, change: SubscriptionChange) -> bool:
        """True when there was none of its name."""
        new = change.subscription.name not in self._state.subscriptions
        self._keep({**self._state.subscriptions, change.subscription.name: change.subscription})
        workflow.upsert_memo({f"{SUBSCRIPTION_MEMO}{change.subscription.name}": change.subscription})
        return new

    @put.validator
    def _may_be_put(self, change: SubscriptionChange) -> None:
        name = change.subscription.name
        if change.must_be_new and name in self._state.subscriptions:
            raise ApplicationError(f"There is a subscription {name} already. Change it with PUT.", type=EXISTS)
        kept = {**self._state.subscriptions, name: change.subscription}
        size = sum(len(one.model_dump_json(exclude_none=True)) for one in kept.values())
        if size > MOST_REGISTRY_BYTES:
            raise ApplicationError(
                f"All subscriptions together may have {MOST_REGISTRY_BYTES:,} bytes as JSON, and with this one they "
                f"would have {size:,}. Remove some, or put them into sevenfold.toml.",
                type=FULL,
            )

    @workflow.update(description="Removes a subscription, by its name.")
    def remove(self, name: str) -> None:
        """Events that come from now on find it gone."""
        self._keep({key: value for key, value in self._state.subscriptions.items() if key != name})
        workflow.upsert_memo({f"{SUBSCRIPTION_MEMO}{name}": None})

    @remove.validator
    def _may_be_removed(self, name: str) -> None:
        if name not in self._state.subscriptions:
            raise ApplicationError(f"There is no subscription {name}.", type=MISSING)

    def _keep(self, subscriptions: dict[str, Subscription]) -> None:
        self._state = RegistryState(subscriptions=subscriptions, changes=self._state.changes + 1)
