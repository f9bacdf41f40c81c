"""Events into a NATS server and out of it, as other programs send and read them."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import nats
import nats.errors
import nats.js.errors
from nats.js.api import StorageType, StreamConfig

from bench.faults.ledger import DoubledError, Run
from sevenfold.contracts.events.event_driven import build_event_id
from sevenfold.contracts.identity import DEFAULT_TENANT

if TYPE_CHECKING:
    from bench.faults.patterns import World

INBOUND, OUTBOUND = "faults.in", "faults.out"
IN_TYPE, OUT_TYPE = "fault.in", "fault.out"
SOURCE = "/faults/broker"

_FAILURES = (TimeoutError, OSError, nats.errors.Error, nats.js.errors.Error)


class Exchange:
    """A client of the broker."""

    def __init__(self, client: Any) -> None:
        """Connected already; it connects again by itself."""
        self._client = client
        # By the id of the event that caused them: (source, id) of each copy that came out.
        self._out: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        self._received: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def prepare(self) -> None:
        """Make the stream that keeps what comes out, in files; the connector has made the other one."""
        config = StreamConfig(name="faults-out", subjects=[OUTBOUND], storage=StorageType.FILE)
        await self._client.jetstream().add_stream(config)

    async def send(self, cloud_event: dict[str, Any]) -> bool:
        """Send an event; return whether the broker acknowledged it."""
        headers = {"content-type": "application/cloudevents+json"}
        try:
            await self._client.jetstream().publish(
                INBOUND, json.dumps(cloud_event).encode(), timeout=5, headers=headers
            )
        except _FAILURES:
            return False
        return True

    async def until_out(self, cause: str) -> None:
        """Wait for what an event led to, and a moment longer for a second that should not be."""
        await self._received[cause].wait()
        await asyncio.sleep(1)

    def out(self, cause: str) -> list[tuple[str, str]]:
        """All copies of what an event led to, by source and id."""
        return self._out[cause]

    async def read_out(self) -> None:
        """Read what comes out, until it is cancelled."""
        while True:
            with suppress(*_FAILURES):
                subscription = await self._client.jetstream().pull_subscribe(OUTBOUND, durable="campaign")
                while True:
                    with suppress(TimeoutError, nats.errors.TimeoutError):
                        for message in await subscription.fetch(50, timeout=1):
                            await self._take(message)
            await asyncio.sleep(0.5)

    async def _take(self, message: Any) -> None:
        headers = dict(message.headers or {})
        cause = headers.get("ce-causationid", "")
        self._out[cause].append((headers.get("ce-source", ""), headers.get("ce-id", "")))
        self._received[cause].set()
        await message.ack()


async def brokered(run: Run, world: "World") -> None:
    """Send an event by the broker; what its reaction derives has to come out again, as one event."""
    exchange = world.exchange
    if exchange is None:
        raise RuntimeError("there is no broker in this phase")
    cloud_event = {"specversion": "1.0", "id": run.key, "source": SOURCE, "type": IN_TYPE, "data": {"key": run.key}}
    while not await exchange.send(cloud_event):
        world.api.ledger.report_odd("NATS", "not kept")
        await asyncio.sleep(world.rng.uniform(0.2, 0.8))
    run.know(build_event_id(DEFAULT_TENANT, SOURCE, run.key))
    await exchange.until_out(run.key)
    copies = exchange.out(run.key)
    if len(set(copies)) > 1:
        raise DoubledError(f"one event led to {sorted(set(copies))}")


@asynccontextmanager
async def open_exchange(url: str) -> AsyncIterator[Exchange]:
    """Connect, and read what comes out while the block runs."""

    async def quiet(_: Exception) -> None:
        """The campaign itself causes what the client would complain of."""

    client = await nats.connect(
        url, max_reconnect_attempts=-1, reconnect_time_wait=0.5, error_cb=quiet, connect_timeout=2
    )
    exchange = Exchange(client)
    await exchange.prepare()
    reading = asyncio.create_task(exchange.read_out())
    try:
        yield exchange
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        with suppress(*_FAILURES):
            await client.close()
