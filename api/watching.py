"""Many who poll one run share one reader: at most seven reads of Temporal a second, however many they are."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from temporalio.service import RPCError

# How old an answer may be, and so how late a change is seen. Some six reads a second, of about 4 ms each.
_FRESH_SECONDS = 0.15

# A watch that nobody asked for so long is forgotten, with the result it holds.
_IDLE_SECONDS = 5.0


@dataclass(frozen=True)
class View:
    """What a reader saw: the body to send, its version, and how many seconds it is worth waiting for the next."""

    body: str
    version: str
    final: bool
    retry_after: float


@dataclass
class Watch:
    """One run's reader. `read` asks Temporal; it is never run twice at a time."""

    read: Callable[[], Awaitable[View]]
    asked_at: float = 0.0
    _view: View | None = None
    _read_at: float = 0.0
    _reading: asyncio.Future[View] | None = None
    _waiters: int = 0
    _follower: asyncio.Task[None] | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def idle(self) -> bool:
        """Whether it may be forgotten."""
        return self._waiters == 0 and time.monotonic() - self.asked_at > _IDLE_SECONDS

    async def now(self) -> View:
        """The run as it was at most 0.15 s ago. What has ended does not change any more."""
        self.asked_at = time.monotonic()
        if self._view and (self._view.final or self.asked_at - self._read_at < _FRESH_SECONDS):
            return self._view
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(self._read())
        # one who leaves must not take the answer away from the others
        return await asyncio.shield(self._reading)

    async def _read(self) -> View:
        begun = time.monotonic()
        view = await self.read()
        if self._view is not None and view.version != self._view.version:
            self._changed.set()
            self._changed = asyncio.Event()
        self._view, self._read_at = view, begun
        return view

    async def other_than(self, version: str, seconds: float) -> View:
        """The first view of another version, or the present one when the time is over or the run has ended."""
        view = await self.now()
        self._waiters += 1
        try:
            async with asyncio.timeout(seconds):
                while view.version == version and not view.final:
                    changed = self._changed
                    if self._follower is None or self._follower.done():
                        self._follower = asyncio.create_task(self._follow())
                    await changed.wait()
                    view = await self.now()
        except TimeoutError:
            return await self.now()
        finally:
            self._waiters -= 1
        return view

    async def _follow(self) -> None:
        """Reads on for as long as somebody waits; a Temporal that is away for a moment is asked again."""
        while self._waiters:
            with suppress(RPCError):
                await self.now()
            await asyncio.sleep(_FRESH_SECONDS)


class Watches:
    """The watches of one API process, by whatever names a run."""

    def __init__(self) -> None:
        self._watches: dict[tuple[str, str], Watch] = {}
        self._swept_at = 0.0

    def of(self, tenant: str, run_id: str, read: Callable[[], Awaitable[View]]) -> Watch:
        """The run's one watch."""
        self._sweep()
        watch = self._watches.get((tenant, run_id))
        if watch is None:
            watch = self._watches[tenant, run_id] = Watch(read, asked_at=time.monotonic())
        return watch

    def _sweep(self) -> None:
        now = time.monotonic()
        if now - self._swept_at > _IDLE_SECONDS:
            self._swept_at = now
            self._watches = {name: watch for name, watch in self._watches.items() if not watch.idle}
