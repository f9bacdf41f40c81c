"""The activities that pass events on: into the gateway itself, and to brokers."""

import asyncio
from typing import Protocol

from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.activities.heartbeats import heartbeat_periodically
from sevenfold.adapters.brokers.message import UnknownBrokerError, UnpublishableError
from sevenfold.adapters.events.ingest import EventIngest
from sevenfold.contracts.events import VIA_DERIVED, PublishedEvent, PublishEventsInput, PublishToBrokerInput
from sevenfold.contracts.verdicts import ErrorCode


class EventPublication:
    """Accepts what agents derive, as if it had come in."""

    def __init__(self, ingest: EventIngest) -> None:
        self._ingest = ingest

    @activity.defn(name="publish_events")
    async def publish_events(self, publish_input: PublishEventsInput) -> list[PublishedEvent]:
        """Repeated, it publishes the same events, of which Temporal knows each already. Raises a final failure for
        what Temporal will never take.
        """
        try:
            accepted = await self._ingest.accept_all(publish_input.tenant, publish_input.events, VIA_DERIVED)
        except RPCError as error:
            if error.status != RPCStatusCode.INVALID_ARGUMENT:
                raise
            raise ApplicationError(error.message, type=ErrorCode.EVENT_REFUSED, non_retryable=True) from error
        return [
            PublishedEvent(event_id=one.event_id, id=event.id, type=event.type)
            for one, event in zip(accepted, publish_input.events, strict=True)
        ]


# Processes and their configuration are rolled out one by one: another one may know the broker.
_UNKNOWN_BROKER_ATTEMPTS = 6

# What a publish that is under way may still take when the process is to stop.
_SHUTDOWN_GRACE_SECONDS = 2.0


class BrokerPublisher(Protocol):
    """What publishes to a broker: `sevenfold.adapters.brokers`. Raises UnknownBrokerError and UnpublishableError for
    what will not succeed here, or nowhere; anything else may pass.
    """

    async def publish(self, publish_input: PublishToBrokerInput) -> None: ...


class BrokerPublication:
    """Publishes to brokers, in the processes that are connected to them."""

    def __init__(self, publisher: BrokerPublisher) -> None:
        self._publisher = publisher

    @activity.defn(name="publish_to_broker")
    async def publish_to_broker(self, publish_input: PublishToBrokerInput) -> None:
        """Returns once the broker has confirmed it. Repeated, it carries the same id. Raises a final failure for what
        the broker will never take.
        """
        async with heartbeat_periodically():
            publishing = asyncio.ensure_future(self._publisher.publish(publish_input))
            stopping = asyncio.ensure_future(activity.wait_for_worker_shutdown())
            try:
                await asyncio.wait({publishing, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not publishing.done():  # a broker that is away must not hold up the end of this process
                    await asyncio.wait({publishing}, timeout=_SHUTDOWN_GRACE_SECONDS)
                if not publishing.done():
                    raise ApplicationError(
                        "This connector stops before the broker is there.", type="ConnectorStopped"
                    )
                publishing.result()
            except UnknownBrokerError as error:
                final = activity.info().attempt >= _UNKNOWN_BROKER_ATTEMPTS
                raise ApplicationError(str(error), type="UnknownBroker", non_retryable=final) from error
            except UnpublishableError as error:
                raise ApplicationError(str(error), type="Unpublishable", non_retryable=True) from error
            finally:
                for task in (publishing, stopping):
                    task.cancel()
                await asyncio.gather(publishing, stopping, return_exceptions=True)
