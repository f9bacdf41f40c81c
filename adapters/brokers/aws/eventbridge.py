"""Amazon EventBridge transport: publishes only. Events come in by an API destination or an SQS target."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from sevenfold.adapters.brokers.aws.batcher import Batcher
from sevenfold.adapters.brokers.aws.client import CONFIG, open_session
from sevenfold.adapters.brokers.aws.queues import EntryError
from sevenfold.adapters.brokers.message import Lag, MessageHandler, UnpublishableError
from sevenfold.contracts.events.cloudevents import CloudEvent, find_time
from sevenfold.contracts.events.event_driven import OutboundRoute
from sevenfold.contracts.messages.maps import MessageFormat
from sevenfold.contracts.tracing import TraceContext

if TYPE_CHECKING:
    from types_aiobotocore_events.client import EventBridgeClient

# Of a request, and so of an entry.
_MAX_BYTES = 256_000

# Of the detail type. The source has the same limit.
_MAX_NAME = 256

# Errors of a whole request that are the fault of an entry.
_FAULTS_OF_ENTRIES = frozenset({"ValidationException"})

# Errors of an entry that a retry may overcome.
_TRANSIENT = frozenset({"ThrottlingException", "InternalFailure", "InternalException", "ServiceUnavailable"})


class EventBridgeTransport:
    """Puts events on the buses of the routes, up to ten in one request."""

    def __init__(self, buses: Sequence[str]) -> None:
        self._buses = [*dict.fromkeys(buses)]
        self._resources: AsyncExitStack | None = None
        self._events: EventBridgeClient | None = None
        self._batcher: Batcher[dict[str, Any]] = Batcher(self._put, _FAULTS_OF_ENTRIES, _MAX_BYTES)

    async def start(self, on_message: MessageHandler) -> None:
        """Looks up the buses. Raises while AWS or a bus is missing."""
        async with AsyncExitStack() as opening:
            events = await opening.enter_async_context(open_session().client("events", config=CONFIG))
            for bus in self._buses:
                await events.describe_event_bus(Name=bus)
            self._resources = opening.pop_all()
        self._events = events

    def is_alive(self) -> bool:
        """There is no connection to lose: each request stands for itself."""
        return self._events is not None

    async def ping(self) -> bool:
        """Whether EventBridge answers now."""
        if self._events is not None and self._buses:
            async with asyncio.timeout(2):
                await self._events.describe_event_bus(Name=self._buses[0])
        return self._events is not None

    async def read_lag(self) -> Lag:
        """Returns nothing: no event waits here."""
        return {}

    async def stop(self) -> None:
        """Closes the connections."""
        await self._batcher.aclose()
        resources, self._resources, self._events = self._resources, None, None
        if resources is not None:
            await resources.aclose()

    async def publish(self, event: CloudEvent, route: OutboundRoute) -> None:
        """Puts an event on the bus `to`, a name or an ARN. The detail is the whole CloudEvent, in a plain message its
        data. Raises UnpublishableError.
        """
        entry = build_entry(event, route.to, route.format)
        size = _size(entry)
        if size > _MAX_BYTES:
            raise UnpublishableError(f"The event has {size:,} bytes, and EventBridge takes {_MAX_BYTES:,}.")
        await self._batcher.add(entry, size)

    async def _put(self, entries: list[dict[str, Any]]) -> list[Exception | None]:
        assert self._events is not None, "publish is called after start"  # noqa: S101
        response = await self._events.put_events(Entries=entries)  # type: ignore[arg-type]
        return [_to_error(dict(one)) for one in response["Entries"]]


def _to_error(result: dict[str, Any]) -> Exception | None:
    code = result.get("ErrorCode")
    if code is None:
        return None
    text = f"EventBridge: {code}: {result.get('ErrorMessage', '')}"
    return EntryError(text) if code in _TRANSIENT else UnpublishableError(text)


def build_entry(event: CloudEvent, bus: str, form: MessageFormat) -> dict[str, Any]:
    """Returns the entry of PutEvents for an event. Raises UnpublishableError: its names are too long, or its data is
    no JSON object.
    """
    if len(event.source) > _MAX_NAME or event.source.startswith("aws."):
        raise UnpublishableError(f"EventBridge takes sources of {_MAX_NAME} characters that do not start with aws.")
    if form is MessageFormat.PLAIN and not isinstance(event.data, dict):
        raise UnpublishableError("EventBridge takes a JSON object only, and the event's data is none.")
    detail = event.data if form is MessageFormat.PLAIN else event.model_dump(exclude_none=True)
    entry: dict[str, Any] = {
        "EventBusName": bus,
        "Source": event.source,
        "DetailType": event.type,
        "Detail": json.dumps(detail),
        "Resources": [event.subject] if event.subject else [],
    }
    if (time := find_time(event)) is not None:
        entry["Time"] = time
    if (trace := TraceContext.parse(str(event.attribute("traceparent") or ""))) is not None:
        root, sampled = f"1-{trace.trace_id[:8]}-{trace.trace_id[8:]}", int(trace.is_sampled)
        entry["TraceHeader"] = f"Root={root};Parent={trace.span_id};Sampled={sampled}"
    return entry


def _size(entry: dict[str, Any]) -> int:
    """The size by AWS's rule: 14 bytes for the time, and the text of the source, type, detail and resources."""
    texts = [entry["Source"], entry["DetailType"], entry["Detail"], *entry["Resources"]]
    return 14 * ("Time" in entry) + sum(len(text.encode()) for text in texts)
