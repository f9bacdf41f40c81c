"""An event for a single waiter."""

import asyncio


class LightEvent:
    """An `asyncio.Event` for one waiter at a time. The library's event holds a queue of waiters, 760 bytes while
    nobody waits, and an open stream has several events.
    """

    __slots__ = ("_set", "_waiter")

    def __init__(self) -> None:
        self._set = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_set(self) -> bool:
        """Whether `wait` returns at once."""
        return self._set

    def set(self) -> None:
        """Wakes the waiter; until `clear`, `wait` returns at once."""
        self._set = True
        if self._waiter is not None:
            _resolve(self._waiter)

    def clear(self) -> None:
        """From now on `wait` waits again."""
        self._set = False

    async def wait(self, seconds: float | None = None) -> None:
        """Returns when the event is set, or after `seconds`."""
        if self._set:
            return
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, _resolve, waiter)
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
            if self._waiter is waiter:
                self._waiter = None


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
