"""Lanes: where a subscription's events take turns."""

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy

from contracts.cloudevents import CloudEvent
from contracts.event_filters import value_in
from contracts.events import Lane, LaneEntries, LaneEntry, LaneState, event_queue, lane_of
from contracts.subscriptions import Subscription

_DATA = "data."


def ordered_lane(tenant: str, subscription: Subscription, event: CloudEvent) -> Lane | None:
    """The lane of the events that have this one's value of `orderBy`; None where there is no order to keep."""
    if subscription.order_by is None:
        return None
    if subscription.order_by.startswith(_DATA):
        value = value_in(event.data, subscription.order_by.removeprefix(_DATA))
    else:
        value = event.attribute(subscription.order_by)
    if value is None:
        return None
    return Lane(id=lane_of(tenant, subscription.name, f"={value}"), capacity=1, ordered=True)


def lanes(tenant: str, subscription: Subscription, event: CloudEvent) -> list[Lane]:
    """The lanes that a reaction passes, in order: its value's, then the one that all of its subscription share."""
    ordered = ordered_lane(tenant, subscription, event)
    passed = [ordered] if ordered else []
    if subscription.concurrency is not None:
        shared = lane_of(tenant, subscription.name, "")
        passed.append(Lane(id=shared, capacity=subscription.concurrency, ordered=False))
    return passed


async def enter_lane(client: Client, task_queue: str, entries: list[LaneEntry]) -> None:
    """Has events, all of one lane, wait for their turns behind those that entered before. To enter again changes
    nothing.
    """
    lane = entries[0].lane
    await client.start_workflow(
        "EventLane",
        LaneState(capacity=lane.capacity),
        id=lane.id,
        task_queue=event_queue(task_queue),
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        start_signal="enter",
        start_signal_args=[LaneEntries(entries=entries)],
    )
