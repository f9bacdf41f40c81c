"""The activities that pass events on: into the gateway itself, and to brokers."""

from typing import Protocol

from temporalio import activity

from activities.heartbeats import heartbeating
from adapters.events.intake import EventIntake
from contracts.events import DERIVED, BrokerOrder, PublishedEvent, PublishOrder


class EventPublication:
    """Accepts what agents derive, as if it had come in."""

    def __init__(self, intake: EventIntake) -> None:
        self._intake = intake

    @activity.defn
    async def publish_events(self, order: PublishOrder) -> list[PublishedEvent]:
        """Repeated, it publishes the same events, of which Temporal knows each already."""
        accepted = await self._intake.accept_all(order.tenant, order.events, DERIVED)
        return [
            PublishedEvent(event_id=one.event_id, id=event.id, type=event.type)
            for one, event in zip(accepted, order.events, strict=True)
        ]


class Publisher(Protocol):
    """What publishes to a broker: `adapters.brokers`."""

    async def publish(self, order: BrokerOrder) -> None: ...


class BrokerPublication:
    """Publishes to brokers, in the processes that are connected to them."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    @activity.defn
    async def publish_to_broker(self, order: BrokerOrder) -> None:
        """Returns once the broker has confirmed it. Repeated, it carries the same id."""
        async with heartbeating():
            await self._publisher.publish(order)
