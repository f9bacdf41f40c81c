"""Takes messages in: into Temporal first, and only then are they acknowledged."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog
from temporalio.service import RPCError, RPCStatusCode

from adapters.brokers.message import Message, event_headers, event_of
from adapters.events.intake import EventIntake, Plan
from contracts.cloudevents import MOST_EVENT_BYTES, CloudEvent, EventRefusedError

log = structlog.get_logger(__name__)

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 10.0

T = TypeVar("T")


class Taking:
    """What comes from one broker, for one tenant. A Temporal that is away is waited for: messages are held, in the
    order in which they came, and none is given back.
    """

    def __init__(self, intake: EventIntake, tenant: str, broker: str) -> None:
        self._intake = intake
        self._tenant = tenant
        self._broker = broker
        self._in_line = asyncio.Lock()

    async def take(self, message: Message) -> None:
        """Returns once the message is acknowledged; cancelled before that, the broker brings it again."""
        async with _held(message):
            try:
                event = event_of(message)
                await self._accept(event)
            except EventRefusedError as refused:
                await self._reject(message, str(refused))
            except RPCError as error:
                # Temporal refuses it for what it says, and always would
                await self._reject(message, error.message)
        await message.ack()

    async def _accept(self, event: CloudEvent) -> None:
        async def plan() -> Plan:
            return await self._intake.plan(self._tenant, [event], self._broker)

        async with self._in_line:  # whose turn is which is settled in the order in which they came
            planned = await self._until_done(plan)
        async with planned.place:
            await self._until_done(planned.carry_out)

    async def _reject(self, message: Message, reason: str) -> None:
        body = message.body[:MOST_EVENT_BYTES]
        log.warning("a message that is no CloudEvent is a dead letter", broker=self._broker, reason=reason)

        async def reject() -> None:
            kept = {name: value[:1_000] for name, value in list(event_headers(message).items())[:50]}
            await self._intake.reject(self._tenant, "poison", reason, self._broker, kept, body)

        await self._until_done(reject)

    async def _until_done(self, work: Callable[[], Awaitable[T]]) -> T:
        pause = _FIRST_PAUSE
        while True:
            try:
                return await work()
            except Exception as error:
                if isinstance(error, RPCError) and error.status == RPCStatusCode.INVALID_ARGUMENT:
                    raise
                log.warning("an event is held: it cannot be taken in now", broker=self._broker, error=str(error))
            await asyncio.sleep(pause * (0.8 + 0.4 * random.random()))
            pause = min(2 * pause, _LONGEST_PAUSE)


@asynccontextmanager
async def _held(message: Message) -> AsyncIterator[None]:
    """Tells the broker that the message is in work, while the block runs."""
    if message.beat is None:
        yield
        return
    beat = message.beat

    async def beating() -> None:
        while True:
            await asyncio.sleep(message.beat_seconds)
            try:
                await beat()
            except Exception as error:
                log.warning("a held message could not be kept", error=str(error))

    task = asyncio.create_task(beating())
    try:
        yield
    finally:
        task.cancel()
