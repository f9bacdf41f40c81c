"""Many who poll one run share one reader: at most seven reads of Temporal a second, however many they are."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection
from temporalio.service import RPCError

# How old an answer may be, and so how late a change is seen. Some six reads a second, of about 4 ms each.
_TTL_SECONDS = 0.15

# A watch that nobody asked for so long is forgotten, with the result it holds.
_IDLE_SECONDS = 5.0


@dataclass(frozen=True)
class PollView:
    """What a reader saw: the body to send, its version, and how many seconds it is worth waiting for the next."""

    body: str
    version: str
    is_final: bool
    retry_after: float


@dataclass
class CachedRun:
    """One run's reader. `read` asks Temporal; it is never run twice at a time."""

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
        """Whether it may be forgotten."""
        return self._waiter_count == 0 and time.monotonic() - self.requested_at > _IDLE_SECONDS

    async def current(self) -> PollView:
        """The run as it was at most 0.15 s ago. What has ended does not change any more."""
        self.requested_at = time.monotonic()
        if self._view and (self._view.is_final or self.requested_at - self._read_at < _TTL_SECONDS):
            return self._view
        if self._pending_read is None or self._pending_read.done():
            self._pending_read = asyncio.ensure_future(self._read())
        # one who leaves must not take the answer away from the others
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
        """The first view of another version, or the present one when the time is over or the run has ended."""
        view = await self.current()
        self._waiter_count += 1
        try:
            async with asyncio.timeout(seconds):
                while view.version == version and not view.is_final:
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
        """Reads on for as long as somebody waits; a Temporal that is away for a moment is asked again."""
        while self._waiter_count:
            with suppress(RPCError):
                await self.current()
            await asyncio.sleep(_TTL_SECONDS)


class PollCache:
    """The watches of one API process, by whatever names a run."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], CachedRun] = {}
        self._swept_at = 0.0

    def get(self, tenant: str, run_id: str, read: Callable[[], Awaitable[PollView]]) -> CachedRun:
        """The run's one watch."""
        self._sweep()
        entry = self._entries.get((tenant, run_id))
        if entry is None:
            entry = self._entries[tenant, run_id] = CachedRun(read, requested_at=time.monotonic())
        return entry

    def _sweep(self) -> None:
        now = time.monotonic()
        if now - self._swept_at > _IDLE_SECONDS:
            self._swept_at = now
            self._entries = {name: entry for name, entry in self._entries.items() if not entry.is_idle}


async def _poll_cache(connection: HTTPConnection) -> PollCache:
    cache: PollCache = connection.app.state.poll_cache
    return cache


PollCacheDep = Annotated[PollCache, Depends(_poll_cache)]
