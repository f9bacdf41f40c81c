"""Ordering semaphores of subscriptions."""

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy

from sevenfold.contracts import workflow_types
from sevenfold.contracts.events.cloudevents import CloudEvent
from sevenfold.contracts.events.event_driven import (
    AcquireInput,
    SemaphoreRef,
    SemaphoreRequest,
    SemaphoreState,
    event_task_queue,
    ordering_workflow_id,
)
from sevenfold.contracts.events.filters import value_at_path
from sevenfold.contracts.events.subscriptions import Subscription

_DATA = "data."


def ordering_semaphore(tenant: str, subscription: Subscription, event: CloudEvent) -> SemaphoreRef | None:
    """Returns the semaphore of the subscription's ordering key (`orderBy`); None if the event has no key."""
    if subscription.order_by is None:
        return None
    if subscription.order_by.startswith(_DATA):
        value = value_at_path(event.data, subscription.order_by.removeprefix(_DATA))
    else:
        value = event.attribute(subscription.order_by)
    if value is None:
        return None
    return SemaphoreRef(id=ordering_workflow_id(tenant, subscription.name, f"={value}"), capacity=1, is_ordered=True)


def semaphores_for(tenant: str, subscription: Subscription, event: CloudEvent) -> list[SemaphoreRef]:
    """Returns the semaphores that a reaction acquires, in order: that of its ordering key, then that of the
    subscription's `concurrency`.
    """
    ordered = ordering_semaphore(tenant, subscription, event)
    semaphores = [ordered] if ordered else []
    if subscription.concurrency is not None:
        shared = ordering_workflow_id(tenant, subscription.name, "")
        semaphores.append(SemaphoreRef(id=shared, capacity=subscription.concurrency, is_ordered=False))
    return semaphores


async def acquire_semaphore(client: Client, task_queue: str, requests: list[SemaphoreRequest]) -> None:
    """Requests one semaphore for events, behind the earlier requests. Idempotent."""
    semaphore = requests[0].semaphore
    await client.start_workflow(
        workflow_types.ORDERING_SEMAPHORE,
        SemaphoreState(capacity=semaphore.capacity),
        id=semaphore.id,
        task_queue=event_task_queue(task_queue),
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        start_signal="acquire",
        start_signal_args=[AcquireInput(requests=requests)],
    )
