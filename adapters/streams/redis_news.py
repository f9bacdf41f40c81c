"""News of many streams over one connection: a single XREAD waits for all of them."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from adapters.streams.redis_client import asked

Batches = list[tuple[bytes, bytes]]

# How long one question may stay open. A stream that is followed meanwhile interrupts it, most times.
_BLOCK_MILLISECONDS = 250
_PAGE = 50
_PAUSE_SECONDS = 0.5

# One that nobody asked for so long is not read any more.
_IDLE_SECONDS = 30.0

_START = b"0-0"


@dataclass
class _Followed:
    """A stream that is waited for. `given` is the id of the last entry handed out, `read` that of the last read."""

    given: bytes
    read: bytes
    batches: Batches = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    error: RedisError | None = None
    waiters: int = 0
    asked_at: float = field(default_factory=time.monotonic)

    @property
    def wanted(self) -> bool:
        # what was not taken yet is enough: nothing grows behind one who does not come for it
        return not self.batches and self.error is None


class RedisNews:
    """What comes in the streams that are waited for, as long as `run` does."""

    def __init__(self, redis: "Redis", name: bytes) -> None:
        self._redis = redis
        self._name = name
        self._followed: dict[str, _Followed] = {}
        self._more = asyncio.Event()
        self._client_id = 0
        self._blocked = False

    def follows(self, key: str, position: bytes | None) -> bool:
        """Whether the stream is waited for from that position on."""
        followed = self._followed.get(key)
        return followed is not None and followed.given == (position or _START)

    async def after(self, key: str, position: bytes | None) -> Batches:
        """Waits for the entries after a position, which is the newest there is. Raises RedisError."""
        start = position or _START
        followed = self._followed.get(key)
        if anew := followed is None or followed.given != start:
            if followed is not None:  # there is one follower of a run here, by design
                followed.error = RedisError("followed from another place")
                followed.news.set()
            followed = self._followed[key] = _Followed(given=start, read=start)
        followed.asked_at = time.monotonic()
        followed.waiters += 1
        try:
            if anew:
                await self._interrupt()
            await followed.news.wait()
        except asyncio.CancelledError:
            if followed.waiters == 1:  # else somebody else has taken its place already
                self._drop(key, followed)
            raise
        finally:
            followed.waiters -= 1
        if followed.error is not None:
            self._drop(key, followed)
            raise followed.error
        batches, followed.batches = followed.batches, []
        if batches:
            followed.given = batches[-1][0]
        followed.news.clear()
        self._more.set()
        return batches

    def _drop(self, key: str, followed: _Followed) -> None:
        if self._followed.get(key) is followed:
            del self._followed[key]

    async def _interrupt(self) -> None:
        self._more.set()
        if self._blocked:
            await asked(self._redis.client_unblock(self._client_id))

    async def run(self) -> None:
        """Asks Redis for news until it is cancelled."""
        async with self._redis.client() as connection:
            while True:
                try:
                    self._client_id = await asked(connection.client_id())
                    while True:
                        await self._read(connection)
                except RedisError as error:
                    for followed in self._followed.values():
                        followed.error = error
                        followed.news.set()
                    await asyncio.sleep(_PAUSE_SECONDS)

    async def _read(self, connection: "Redis") -> None:
        idle = time.monotonic() - _IDLE_SECONDS
        for key, followed in list(self._followed.items()):
            if followed.asked_at < idle and not followed.waiters:
                self._drop(key, followed)
        wanted: dict[Any, Any] = {key: followed.read for key, followed in self._followed.items() if followed.wanted}
        if not wanted:
            self._more.clear()
            await self._more.wait()
            return
        self._blocked = True
        try:
            answer: Any = await asked(connection.xread(wanted, count=_PAGE, block=_BLOCK_MILLISECONDS))
        finally:
            self._blocked = False
        for key, messages in answer.items() if isinstance(answer, dict) else answer or []:
            self._take(key.decode(), messages, wanted)

    def _take(self, key: str, messages: Any, asked: dict[Any, Any]) -> None:
        followed = self._followed.get(key)
        if followed is None or not messages or followed.read is not asked[key]:
            return  # nobody waits for these any more
        batches = [(identity, fields[self._name]) for identity, fields in messages]
        followed.batches = batches
        followed.read = batches[-1][0]
        followed.news.set()
