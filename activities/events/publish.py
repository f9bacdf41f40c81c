"""Activities that publish events: into the gateway itself, and to brokers."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Protocol

from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.activities.heartbeats import heartbeat_periodically
from sevenfold.adapters.access.directory import TenantErasingError
from sevenfold.adapters.brokers.message import UnknownBrokerError, UnpublishableError
from sevenfold.adapters.events.ingest import EventIngest
from sevenfold.adapters.quotas.exceeded import QuotaExceededError
from sevenfold.adapters.tracing import record
from sevenfold.contracts.agents.errors import ErrorCode
from sevenfold.contracts.events.event_driven import (
    VIA_DERIVED,
    PublishedEvent,
    PublishEventsInput,
    PublishToBrokerInput,
)
from sevenfold.contracts.tracing import Span, SpanKind, TraceContext


@contextmanager
def refusals_as_failures(final: Sequence[RPCStatusCode] = (RPCStatusCode.INVALID_ARGUMENT,)) -> Iterator[None]:
    """Converts what the ingest raises for events that it does not accept to the activity's failure: final for those
    that Temporal rejects (with one of the statuses in `final`) and while the tenant is erased, otherwise retried.
    """
    try:
        yield
    except QuotaExceededError as error:
        delay = timedelta(seconds=error.retry_after or 1.0)
        raise ApplicationError(str(error), type=ErrorCode.QUOTA_EXCEEDED, next_retry_delay=delay) from error
    except TenantErasingError as error:
        raise ApplicationError(str(error), type=ErrorCode.EVENT_REFUSED, non_retryable=True) from error
    except RPCError as error:
        if error.status not in final:
            raise
        raise ApplicationError(error.message, type=ErrorCode.EVENT_REFUSED, non_retryable=True) from error


class EventPublication:
    """Accepts derived events and interaction events like inbound ones."""

    def __init__(self, ingest: EventIngest) -> None:
        self._ingest = ingest

    @activity.defn(name="publish_events")
    async def publish_events(self, publish_input: PublishEventsInput) -> list[PublishedEvent]:
        """Accepts the events and returns their ids. Idempotent: Temporal detects repeated events by their ids.

        Raises a non-retryable ApplicationError for an event that Temporal rejects, and while the tenant is erased;
        one that is retried later while the tenant's rate of events is used up.
        """
        with refusals_as_failures():
            accepted = await self._ingest.accept_all(publish_input.tenant, publish_input.events, VIA_DERIVED)
        return [
            PublishedEvent(event_id=one.event_id, id=event.id, type=event.type)
            for one, event in zip(accepted, publish_input.events, strict=True)
        ]


@asynccontextmanager
async def _recorded(publish_input: PublishToBrokerInput) -> AsyncIterator[None]:
    """Records a span of the attempt, in the event's trace."""
    started_at, error = time.time(), None
    try:
        yield
    except (Exception, asyncio.CancelledError) as failure:
        error = type(failure).__name__
        raise
    finally:
        parent = TraceContext.parse(publish_input.traceparent)
        if parent is not None:
            route = publish_input.route
            attributes: dict[str, str | int | float | bool] = {
                "messaging.operation.name": "send",
                "messaging.operation.type": "send",
                "messaging.destination.name": route.to,
                "messaging.message.id": publish_input.event.id,
                "sevenfold.broker": route.broker,
                "sevenfold.attempt": activity.info().attempt,
            }
            context, ended_at = parent.child(), time.time()
            name = f"send {route.to}"
            span = Span(name, SpanKind.CLIENT, context, parent, started_at, ended_at, attributes, error)
            record(span)


# Processes get a new configuration one by one, so another one may know the broker.
_UNKNOWN_BROKER_ATTEMPTS = 6

# Time for a publication in flight to complete when the process stops.
_SHUTDOWN_GRACE_SECONDS = 2.0


class BrokerPublisher(Protocol):
    """Publishes to a broker (implemented in `sevenfold.adapters.brokers`).

    Raises UnknownBrokerError if this process does not have the broker, UnpublishableError if no retry can succeed.
    Other exceptions are transient.
    """

    async def publish(self, publish_input: PublishToBrokerInput) -> None: ...


class BrokerPublication:
    """Publishes to brokers, in the processes that are connected to them."""

    def __init__(self, publisher: BrokerPublisher) -> None:
        self._publisher = publisher

    @activity.defn(name="publish_to_broker")
    async def publish_to_broker(self, publish_input: PublishToBrokerInput) -> None:
        """Returns when the broker has confirmed the event. A retry publishes the same event id again.

        Raises a non-retryable ApplicationError for an event that the broker rejects.
        """
        async with heartbeat_periodically(), _recorded(publish_input):
            publishing = asyncio.ensure_future(self._publisher.publish(publish_input))
            stopping = asyncio.ensure_future(activity.wait_for_worker_shutdown())
            try:
                await asyncio.wait({publishing, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not publishing.done():  # A broker that is down must not delay the end of this process.
                    await asyncio.wait({publishing}, timeout=_SHUTDOWN_GRACE_SECONDS)
                if not publishing.done():
                    raise ApplicationError(
                        "The connector stopped before the broker was connected.", type="ConnectorStopped"
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
