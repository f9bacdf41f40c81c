"""Clients that poll one run share one reader: at most seven reads of Temporal per second and run."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from temporalio.service import RPCError

# Maximum age of a view, and so the delay of a change. About six reads per second, of about 4 ms each.
_TTL_SECONDS = 0.15

# An entry is dropped, with the result it holds, after this long without a read.
_IDLE_SECONDS = 5.0


@dataclass(frozen=True)
class PollView:
    """A run at one moment: the body to send, its version, and the seconds until polling again is worthwhile. A run
    that has ended changes again if it is retried; one that has completed never does.
    """

    body: str
    version: str
    has_ended: bool
    has_completed: bool
    retry_after: float


@dataclass
class CachedRun:
    """The shared reader of one run. `read` asks Temporal; it never runs twice at a time."""

    read: Callable[[], Awaitable[PollView]]
    requested_at: float = 0.0
    _view: PollView | None = None
    _read_at: float = 0.0
    _pending_read: asyncio.Future[PollView] | None = None
    _waiter_count: int = 0
    _poller: asyncio.Task[None] | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_idle(self) -> bool:
        """Whether the cache may drop it."""
        return self._waiter_count == 0 and time.monotonic() - self.requested_at > _IDLE_SECONDS

    async def current(self) -> PollView:
        """Returns the run as it was at most 0.15 s ago. The view of a completed run is kept."""
        self.requested_at = time.monotonic()
        if self._view and (self._view.has_completed or self.requested_at - self._read_at < _TTL_SECONDS):
            return self._view
        if self._pending_read is None or self._pending_read.done():
            self._pending_read = asyncio.ensure_future(self._read())
        # a client that disconnects must not cancel the read of the others
        return await asyncio.shield(self._pending_read)

    async def _read(self) -> PollView:
        started_at = time.monotonic()
        view = await self.read()
        if self._view is not None and view.version != self._view.version:
            self._changed.set()
            self._changed = asyncio.Event()
        self._view, self._read_at = view, started_at
        return view

    async def wait_for_change(self, version: str, seconds: float) -> PollView:
        """Returns the view once its version is another, the run has ended, or `seconds` have passed."""
        view = await self.current()
        self._waiter_count += 1
        try:
            async with asyncio.timeout(seconds):
                while view.version == version and not view.has_ended:
                    changed = self._changed
                    if self._poller is None or self._poller.done():
                        self._poller = asyncio.create_task(self._poll())
                    await changed.wait()
                    view = await self.current()
        except TimeoutError:
            return await self.current()
        finally:
            self._waiter_count -= 1
        return view

    async def _poll(self) -> None:
        """Reads until no client waits any more. A read that Temporal fails is repeated."""
        while self._waiter_count:
            with suppress(RPCError):
                await self.current()
            await asyncio.sleep(_TTL_SECONDS)


class PollCache:
    """The readers of one API process, by tenant and run id."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], CachedRun] = {}
        self._swept_at = 0.0

    def get(self, tenant: str, run_id: str, read: Callable[[], Awaitable[PollView]]) -> CachedRun:
        """Returns the run's reader, which is created on first use."""
        self._sweep()
        entry = self._entries.get((tenant, run_id))
        if entry is None:
            entry = self._entries[tenant, run_id] = CachedRun(read, requested_at=time.monotonic())
        return entry

    def drop(self, tenant: str, run_id: str) -> None:
        """Forgets a run that was retried."""
        self._entries.pop((tenant, run_id), None)

    def _sweep(self) -> None:
        now = time.monotonic()
        if now - self._swept_at > _IDLE_SECONDS:
            self._swept_at = now
            self._entries = {name: entry for name, entry in self._entries.items() if not entry.is_idle}
