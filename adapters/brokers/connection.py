"""One broker's connection, which is made again for as long as it takes."""

import asyncio
import struct

import structlog

from adapters.brokers.message import Take, Transport, UnpublishableError
from contracts.cloudevents import CloudEvent

log = structlog.get_logger(__name__)

_IMPATIENT_AFTER = 3.0
_START_SECONDS = 30.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 10.0
_LOOKED_AFTER = 1.0

_NEVER = (ValueError, TypeError, OverflowError, struct.error)


class BrokerConnection:
    """Runs a transport until it is cancelled."""

    def __init__(self, name: str, transport: Transport, take: Take) -> None:
        self.name = name
        self._transport = transport
        self._take = take
        self._up = asyncio.Event()

    async def run(self) -> None:
        """Connects, consumes, and connects again whenever that ends."""
        pause = _FIRST_PAUSE
        try:
            while True:
                try:
                    await self._start()
                except Exception as error:
                    log.warning("broker cannot be reached; trying again", broker=self.name, error=_said(error))
                else:
                    pause = _FIRST_PAUSE
                    await self._while_it_lives()
                await self._stop()
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
        finally:
            await self._stop()

    async def _start(self) -> None:
        starting = asyncio.ensure_future(self._transport.start(self._take))
        try:
            done, _ = await asyncio.wait({starting}, timeout=_IMPATIENT_AFTER)
            if not done:  # some clients try again by themselves, and say nothing
                log.warning("broker cannot be reached yet", broker=self.name)
            await asyncio.wait_for(starting, _START_SECONDS)
        finally:
            starting.cancel()

    async def _while_it_lives(self) -> None:
        log.info("broker is connected", broker=self.name)
        self._up.set()
        try:
            while self._transport.alive():  # noqa: ASYNC110  (no client has an event for it)
                await asyncio.sleep(_LOOKED_AFTER)
        finally:
            self._up.clear()
        log.warning("broker has to be connected again", broker=self.name)

    async def _stop(self) -> None:
        try:
            await self._transport.stop()
        except Exception as error:
            log.warning("broker's connection did not end in order", broker=self.name, error=_said(error))

    async def publish(self, event: CloudEvent, to: str) -> None:
        """Returns once the broker has confirmed it. Waits for a broker that is away. Raises UnpublishableError."""
        await self._up.wait()
        try:
            await self._transport.publish(event, to)
        except _NEVER as error:  # the event or the address cannot be put into the broker's protocol
            raise UnpublishableError(_said(error)) from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
