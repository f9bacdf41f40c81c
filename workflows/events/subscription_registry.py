"""Subscription registry: the subscriptions that were created by the API. One workflow per tenant, without an end."""

from collections.abc import Mapping

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from sevenfold.contracts import workflow_types
from sevenfold.contracts.events.subscriptions import (
    MAX_SUBSCRIPTIONS_BYTES,
    SUBSCRIPTION_EXISTS,
    SUBSCRIPTION_MEMO_PREFIX,
    SUBSCRIPTION_MISSING,
    SUBSCRIPTIONS_FULL,
    SUBSCRIPTIONS_OVER_QUOTA,
    PutSubscriptionInput,
    Subscription,
    SubscriptionRegistryState,
    subscription_memos,
)


@workflow.defn(name=workflow_types.SUBSCRIPTION_REGISTRY)
class SubscriptionRegistry:
    """Keeps one memo per subscription, so that reading the registry needs no worker."""

    @workflow.init
    def __init__(self, state: SubscriptionRegistryState) -> None:
        self._state = state
        self._renew_requested = False

    @workflow.run
    async def run(self, state: SubscriptionRegistryState) -> None:
        """Serves updates; continues as new when Temporal suggests it, and on `renew`."""
        await workflow.wait_condition(lambda: self._renew_requested or workflow.info().is_continue_as_new_suggested())
        await workflow.wait_condition(workflow.all_handlers_finished)
        workflow.continue_as_new(self._state, memo=subscription_memos(self._state))

    @workflow.signal(name="renew", description="Encrypts state and memos with the first codec key.")
    def renew(self) -> None:
        """Sent at the start of a process whose first codec key is another one: continues as new."""
        self._renew_requested = True

    @workflow.update(name="put", description="Creates or replaces a subscription.")
    def put(self, change: PutSubscriptionInput) -> bool:
        """Returns True if the subscription is new.

        The validator rejects with `SUBSCRIPTION_EXISTS` (`create_only`), `SUBSCRIPTIONS_OVER_QUOTA` and
        `SUBSCRIPTIONS_FULL` (over `MAX_SUBSCRIPTIONS_BYTES`).
        """
        new = change.subscription.name not in self._state.subscriptions
        self._store({**self._state.subscriptions, change.subscription.name: change.subscription})
        workflow.upsert_memo({f"{SUBSCRIPTION_MEMO_PREFIX}{change.subscription.name}": change.subscription})
        return new

    @put.validator
    def _validate_put(self, change: PutSubscriptionInput) -> None:
        name = change.subscription.name
        if change.create_only and name in self._state.subscriptions:
            raise ApplicationError(
                f"Subscription {name} exists already. Change it with PUT.", type=SUBSCRIPTION_EXISTS
            )
        subscriptions = {**self._state.subscriptions, name: change.subscription}
        self._check_quotas(change, subscriptions)
        size = sum(len(one.model_dump_json(exclude_none=True)) for one in subscriptions.values())
        if size > MAX_SUBSCRIPTIONS_BYTES:
            raise ApplicationError(
                f"The subscriptions of a tenant are limited to {MAX_SUBSCRIPTIONS_BYTES:,} bytes of JSON; with this "
                f"one they have {size:,}. Remove some, or move some to sevenfold.toml.",
                type=SUBSCRIPTIONS_FULL,
            )

    def _check_quotas(self, change: PutSubscriptionInput, subscriptions: Mapping[str, Subscription]) -> None:
        """Raises ApplicationError, whose detail is the number of the quota that is used up."""
        before = self._state.subscriptions.get(change.subscription.name)
        for number, quota in enumerate(change.quotas):
            has_place = before is not None and quota.counts(before)
            if not has_place and sum(map(quota.counts, subscriptions.values())) > quota.limit:
                whose = "tenant" if quota.key_id is None else "key"
                raise ApplicationError(
                    f"The {whose} may have {quota.limit:,} subscriptions and has them. Delete one first.",
                    number,
                    type=SUBSCRIPTIONS_OVER_QUOTA,
                )

    @workflow.update(name="remove", description="Removes a subscription, by its name.")
    def remove(self, name: str) -> None:
        """Later events do not match the subscription. The validator rejects with `SUBSCRIPTION_MISSING`."""
        self._store({key: value for key, value in self._state.subscriptions.items() if key != name})
        workflow.upsert_memo({f"{SUBSCRIPTION_MEMO_PREFIX}{name}": None})

    @remove.validator
    def _validate_remove(self, name: str) -> None:
        if name not in self._state.subscriptions:
            raise ApplicationError(f"Subscription {name} does not exist.", type=SUBSCRIPTION_MISSING)

    def _store(self, subscriptions: dict[str, Subscription]) -> None:
        self._state = SubscriptionRegistryState(
            subscriptions=subscriptions, change_count=self._state.change_count + 1
        )
