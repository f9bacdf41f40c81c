"""New entries of many streams over one connection: a single XREAD waits for all of them."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from sevenfold.adapters.streams.redis.client import propagate_cancel

Batches = list[tuple[bytes, bytes]]

# How long one XREAD may wait. A stream that is followed meanwhile interrupts it, most times.
_BLOCK_MILLISECONDS = 250

# XREADs that return something start at least this far apart. Each one names every stream that is waited for: with 100
# streams, one for every chunk would cost more than all the rest. It does not delay a single stream.
_INTERVAL_SECONDS = 0.008
_PAGE = 50
_PAUSE_SECONDS = 0.5

# A stream without a reader for this long is not read any more.
_IDLE_SECONDS = 30.0

_START = b"0-0"


@dataclass
class _TailedStream:
    """A stream that is waited for. `delivered` is the position after the last batch handed out, `read` after the last
    one read.
    """

    delivered: bytes
    read: bytes
    batches: Batches = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    error: RedisError | None = None
    waiter_count: int = 0
    requested_at: float = field(default_factory=time.monotonic)

    @property
    def needs_read(self) -> bool:
        # one page at a time: nothing grows for a stream whose reader does not come
        return not self.batches and self.error is None


class RedisTailer:
    """Reads the streams that are waited for, as long as `run` runs."""

    def __init__(self, redis: "Redis", name: bytes) -> None:
        self._redis = redis
        self._name = name
        self._tailed: dict[str, _TailedStream] = {}
        self._reader_wanted = asyncio.Event()
        self._client_id = 0
        self._is_blocked = False

    def is_tailing(self, key: str, position: bytes | None) -> bool:
        """Whether the stream is waited for from that position on."""
        tailed = self._tailed.get(key)
        return tailed is not None and tailed.delivered == (position or _START)

    async def wait_after(self, key: str, position: bytes | None) -> Batches:
        """Waits for the entries after a position, which is the newest there is. Raises RedisError."""
        start = position or _START
        tailed = self._tailed.get(key)
        if is_new := tailed is None or tailed.delivered != start:
            if tailed is not None:  # a hub reads its log once
                tailed.error = RedisError("followed from another place")
                tailed.changed.set()
            tailed = self._tailed[key] = _TailedStream(delivered=start, read=start)
        tailed.requested_at = time.monotonic()
        tailed.waiter_count += 1
        try:
            if is_new:
                await self._interrupt_read()
            await tailed.changed.wait()
        except asyncio.CancelledError:
            if tailed.waiter_count == 1:  # else another one has taken its place already
                self._drop(key, tailed)
            raise
        finally:
            tailed.waiter_count -= 1
        if tailed.error is not None:
            self._drop(key, tailed)
            raise tailed.error
        batches, tailed.batches = tailed.batches, []
        if batches:
            tailed.delivered = batches[-1][0]
        tailed.changed.clear()
        self._reader_wanted.set()
        return batches

    def _drop(self, key: str, tailed: _TailedStream) -> None:
        if self._tailed.get(key) is tailed:
            del self._tailed[key]

    async def _interrupt_read(self) -> None:
        self._reader_wanted.set()
        if self._is_blocked:
            await propagate_cancel(self._redis.client_unblock(self._client_id))

    async def run(self) -> None:
        """Reads until it is cancelled."""
        async with self._redis.client() as connection:
            while True:
                try:
                    self._client_id = await propagate_cancel(connection.client_id())
                    while True:
                        await self._read(connection)
                except RedisError as error:
                    for tailed in self._tailed.values():
                        tailed.error = error
                        tailed.changed.set()
                    await asyncio.sleep(_PAUSE_SECONDS)

    async def _read(self, connection: "Redis") -> None:
        idle = time.monotonic() - _IDLE_SECONDS
        for key, tailed in list(self._tailed.items()):
            if tailed.requested_at < idle and not tailed.waiter_count:
                self._drop(key, tailed)
        positions: dict[Any, Any] = {key: tailed.read for key, tailed in self._tailed.items() if tailed.needs_read}
        if not positions:
            self._reader_wanted.clear()
            await self._reader_wanted.wait()
            return
        started_at = time.monotonic()
        self._is_blocked = True
        try:
            answer: Any = await propagate_cancel(connection.xread(positions, count=_PAGE, block=_BLOCK_MILLISECONDS))
        finally:
            self._is_blocked = False
        for key, messages in answer.items() if isinstance(answer, dict) else answer or []:
            self._deliver(key.decode(), messages, positions)
        if answer:
            # at least one turn of the loop, in which the hubs take their batches: the next XREAD waits for all again
            await asyncio.sleep(max(0.0, started_at + _INTERVAL_SECONDS - time.monotonic()))

    def _deliver(self, key: str, messages: Any, positions: dict[Any, Any]) -> None:
        tailed = self._tailed.get(key)
        if tailed is None or not messages or tailed.read is not positions[key]:
            return  # nobody waits for these any more
        batches = [(identity, fields[self._name]) for identity, fields in messages]
        tailed.batches = batches
        tailed.read = batches[-1][0]
        tailed.changed.set()
