"""One broker's connection, reconnected without a limit."""

import asyncio
import itertools
import struct

import structlog

from sevenfold.adapters.brokers.message import Lag, MessageHandler, Transport, UnpublishableError
from sevenfold.adapters.metrics.events import broker_connected, count_message, show_lag
from sevenfold.contracts.events.cloudevents import CloudEvent
from sevenfold.contracts.events.event_driven import OutboundRoute

log = structlog.get_logger(__name__)

_WARN_AFTER_SECONDS = 3.0
_START_SECONDS = 30.0
_CANCEL_SECONDS = 2.0
_FIRST_PAUSE = 0.5
_MAX_PAUSE = 10.0
_POLL_SECONDS = 1.0

# The lag is read at every tenth poll, within this many seconds.
_LAG_EVERY, _LAG_SECONDS = 10, 2.0

_PERMANENT_ERRORS = (ValueError, TypeError, OverflowError, struct.error)


class BrokerConnection:
    """Runs a transport until it is cancelled. `is_reachable`: whether the broker has answered in the last seconds."""

    def __init__(self, name: str, transport: Transport, on_message: MessageHandler) -> None:
        self.name = name
        self._transport = transport
        self._on_message = on_message
        self._connected = asyncio.Event()
        self._set_reachable(is_reachable=False)

    async def run(self) -> None:
        """Connects, consumes, and reconnects whenever the connection ends."""
        pause = _FIRST_PAUSE
        try:
            while True:
                try:
                    await self._start()
                except Exception as error:
                    log.warning("broker is not reachable, retrying", broker=self.name, error=_describe_error(error))
                else:
                    pause = _FIRST_PAUSE
                    await self._wait_while_alive()
                await self._stop()
                await asyncio.sleep(pause)
                pause = min(2 * pause, _MAX_PAUSE)
        finally:
            await self._stop()

    async def _start(self) -> None:
        starting = asyncio.ensure_future(self._transport.start(self._on_message))
        try:
            done, _ = await asyncio.wait({starting}, timeout=_WARN_AFTER_SECONDS)
            if not done:  # Some clients retry by themselves without a log line.
                log.warning("broker is not reachable yet", broker=self.name)
            await asyncio.wait_for(starting, _START_SECONDS)
        finally:
            starting.cancel()
            # What it has opened meanwhile is closed by itself, before `stop` looks.
            await asyncio.wait({starting}, timeout=_CANCEL_SECONDS)

    async def _wait_while_alive(self) -> None:
        log.info("broker connected", broker=self.name)
        self._connected.set()
        self._set_reachable(is_reachable=True)
        try:
            for second in itertools.count():
                if not self._transport.is_alive():  # no client has an event for it
                    break
                await asyncio.sleep(_POLL_SECONDS)
                self._set_reachable(is_reachable=await self._ping())
                if second % _LAG_EVERY == 0:
                    await self._show_lag()
        finally:
            self._connected.clear()
            show_lag(self.name, {})
            self._set_reachable(is_reachable=False)
        log.warning("broker connection lost, reconnecting", broker=self.name)

    async def _show_lag(self) -> None:
        """Without an answer nothing is shown: an old number would look like a broker that stands still."""
        lag: Lag = {}
        try:
            async with asyncio.timeout(_LAG_SECONDS):
                lag = await self._transport.read_lag()
        except Exception as error:  # Whatever the client raises: consuming continues.
            log.debug("the lag of a broker cannot be read", broker=self.name, error=_describe_error(error))
        show_lag(self.name, lag)

    async def _ping(self) -> bool:
        try:
            return await self._transport.ping()
        except Exception:  # Whatever the client raises, it did not answer.
            return False

    def _set_reachable(self, *, is_reachable: bool) -> None:
        self.is_reachable = is_reachable
        broker_connected(self.name).set(is_reachable)

    async def _stop(self) -> None:
        try:
            await self._transport.stop()
        except Exception as error:
            log.warning("closing a broker connection failed", broker=self.name, error=_describe_error(error))

    async def publish(self, event: CloudEvent, route: OutboundRoute) -> None:
        """Returns when the broker has confirmed the event. Waits for a broker that is down. Raises
        UnpublishableError.
        """
        await self._connected.wait()
        try:
            await self._transport.publish(event, route)
            count_message(self.name, sent=True, outcome="confirmed")
        except _PERMANENT_ERRORS as error:  # The broker's protocol cannot encode the event or the address.
            count_message(self.name, sent=True, outcome="refused")
            raise UnpublishableError(_describe_error(error)) from error


def _describe_error(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
