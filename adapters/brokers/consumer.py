"""Consumes messages: each is an event or a run in Temporal before it is acknowledged."""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.brokers.backlog import Backlog
from sevenfold.adapters.brokers.mapping import map_message
from sevenfold.adapters.brokers.message import BrokerMessage, event_headers, parse_event, with_partition_key
from sevenfold.adapters.brokers.runs import MessageRuns
from sevenfold.adapters.events.ingest import Admission, EventIngest
from sevenfold.adapters.metrics.events import count_message, unacknowledged_messages
from sevenfold.adapters.quotas.exceeded import QuotaExceededError
from sevenfold.contracts.events.cloudevents import MAX_EVENT_BYTES, CloudEvent, InvalidEventError
from sevenfold.contracts.runs.message_runs import StartConfig

log = structlog.get_logger(__name__)

_FIRST_PAUSE = 0.5
_MAX_PAUSE = 10.0

# Of a dead letter; lists return it.
_MAX_REASON_CHARACTERS = 1_000

T = TypeVar("T")


class BrokerConsumer:
    """The messages of one broker; each belongs to the tenant of its source. While Temporal is down, messages are held
    in order and none is returned to the broker.
    """

    def __init__(
        self, ingest: EventIngest, runs: MessageRuns, backlogs: Mapping[tuple[str, str], Backlog], broker: str
    ) -> None:
        self._ingest = ingest
        self._runs = runs
        self._backlogs = backlogs
        self._broker = broker
        self._order_locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def consume(self, message: BrokerMessage) -> None:
        """Returns when the message is acknowledged. If it is cancelled earlier, the broker delivers the message
        again.
        """
        with unacknowledged_messages(self._broker).track_inprogress():
            await self._store(message)
            await message.ack()

    async def _store(self, message: BrokerMessage) -> None:
        async with _keep_alive(message):
            outcome = "accepted"
            try:
                if message.source.start is not None:
                    await self._start_run(message, message.source.start)
                else:
                    await self._accept_event(message)
            except InvalidEventError as refusal:
                outcome = "rejected"
                await self._reject(message, str(refusal))
            except RPCError as error:
                # Temporal rejects the event's content, which no retry changes.
                outcome = "rejected"
                await self._reject(message, error.message)
            count_message(self._broker, sent=False, outcome=outcome)

    async def _start_run(self, message: BrokerMessage, start: StartConfig) -> None:
        prepared = _parse(lambda: self._runs.prepare(message, start, self._broker))

        async def start_with_room() -> None:
            await self._backlogs[message.source.key].wait_for_room()
            await self._runs.start(prepared)

        await self._retry_until_done(start_with_room)

    async def _accept_event(self, message: BrokerMessage) -> None:
        event = _parse(
            lambda: with_partition_key(parse_event(message) or map_message(message), message.partition_key)
        )
        await self._retry_until_done(self._backlogs[message.source.key].wait_for_room)
        await self._accept(message.tenant, event)

    async def _accept(self, tenant: str, event: CloudEvent) -> None:
        async def prepare() -> Admission:
            return await self._ingest.prepare(tenant, [event], self._broker)

        # Fixes the position of the event in its ordering keys, in order of arrival.
        async with self._order_locks[tenant]:
            admission = await self._retry_until_done(prepare)
        async with admission.ticket:
            await self._retry_until_done(admission.execute)

    async def _reject(self, message: BrokerMessage, reason: str) -> None:
        body, reason = message.body[:MAX_EVENT_BYTES], reason[:_MAX_REASON_CHARACTERS]
        if message.delivery_count is not None:
            reason += f" (delivery {message.delivery_count})"

        async def reject() -> None:
            kept = {name: value[:1_000] for name, value in list(event_headers(message).items())[:50]}
            letter = await self._ingest.reject(message.tenant, "poison", reason, self._broker, kept, body)
            # The reason may quote the message, so it is in the dead letter alone.
            log.warning("a message cannot be read and is a dead letter", broker=self._broker, dead_letter=letter)

        await self._retry_until_done(reject)

    async def _retry_until_done(self, work: Callable[[], Awaitable[T]]) -> T:
        pause = _FIRST_PAUSE
        while True:
            try:
                return await work()
            except Exception as error:
                is_rejected = isinstance(error, RPCError) and error.status == RPCStatusCode.INVALID_ARGUMENT
                if is_rejected or isinstance(error, InvalidEventError):
                    raise
                if isinstance(error, QuotaExceededError):
                    if error.retry_after is None:
                        raise InvalidEventError([("", str(error))]) from None
                    # The tenant's messages wait for its quota.
                    await asyncio.sleep(min(error.retry_after, _MAX_PAUSE))
                    continue
                log.warning("accepting a message failed, retrying", broker=self._broker, error=str(error))
            await asyncio.sleep(pause * (0.8 + 0.4 * random.random()))
            pause = min(2 * pause, _MAX_PAUSE)


def _parse(work: Callable[[], T]) -> T:
    """Calls what reads a message. Whatever it raises, the message is at fault: another try would raise it again."""
    try:
        return work()
    except InvalidEventError:
        raise
    except Exception as error:
        log.exception("a message cannot be read")
        raise InvalidEventError([("", f"it cannot be read: {type(error).__name__}")]) from error


@asynccontextmanager
async def _keep_alive(message: BrokerMessage) -> AsyncIterator[None]:
    """Extends the broker's acknowledgement deadline while the block runs."""
    if message.keep_alive is None:
        yield
        return
    keep_alive = message.keep_alive

    async def run_keep_alive() -> None:
        while True:
            await asyncio.sleep(message.keep_alive_seconds)
            try:
                await keep_alive()
            except Exception as error:
                log.warning("extending a message's acknowledgement deadline failed", error=str(error))

    task = asyncio.create_task(run_keep_alive())
    try:
        yield
    finally:
        task.cancel()
