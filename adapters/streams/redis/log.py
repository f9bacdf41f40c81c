"""The log of streams in Redis (7 or newer): a Redis Stream per run, for many hosts and thousands of readers.

An entry of a Redis Stream holds a batch, and its id begins with the batch's last index. So Redis itself refuses what
a late writer still sends, and the last index is read without looking into any batch. A position is such an id.
"""

import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError, ResponseError

from sevenfold.adapters.encryption.key_ring import DecryptionError, KeyRing
from sevenfold.adapters.streams.redis.batch_cipher import BatchCipher
from sevenfold.adapters.streams.redis.batcher import RedisBatcher, StreamWrite
from sevenfold.adapters.streams.redis.client import propagate_cancel, run_in_background
from sevenfold.adapters.streams.redis.tailer import RedisTailer
from sevenfold.contracts.identity import build_workflow_id
from sevenfold.contracts.runs.streams import Index, StreamClosedError, StreamEntry, StreamLogError, StreamPage

FIELD = b"entries"
_GLOB = re.compile(r"[*?\[\]\\^-]")
_SCAN_COUNT = 1_000
_PAGE = 50

# The batcher has the pace of writes for readers elsewhere. Readers in this process have the replay buffer.
_WRITE_INTERVAL_SECONDS = 0.0
_LOCAL_WRITE_INTERVAL_SECONDS = 0.25

# The time to live of a stream that is written is renewed this often, not with every write: the command takes as long
# as the write itself.
_RENEW_SECONDS = 1.0


class RedisUnusableError(Exception):
    """There is no Redis at the address, or it cannot serve. The message never holds the address, or its password."""


@asynccontextmanager
async def open_redis_log(url: str, namespace: str, lifetime: float, keys: KeyRing) -> AsyncIterator["RedisStreamLog"]:
    """The log in a Redis that answered, for as long as the block runs. A stream is kept for `lifetime` seconds after
    its last entry, and encrypted if there are `keys`. Raises RedisUnusableError.
    """
    try:
        # A command that is retried after a lost connection may have been executed: an entry kept twice does no harm.
        retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=3)
        redis = Redis.from_url(
            url, socket_connect_timeout=5, socket_timeout=20, health_check_interval=30, retry=retry
        )
    except ValueError as error:
        raise RedisUnusableError(f"it is not a Redis URL such as redis://127.0.0.1:6379/0 ({error})") from None
    try:
        try:
            version = str((await redis.info("server"))["redis_version"])
        except RedisError as error:
            raise RedisUnusableError(f"Redis does not answer: {error}") from None
        if int(version.partition(".")[0]) < 7:
            raise RedisUnusableError(f"Redis {version} is too old; streams need Redis 7 or newer")
        tailer, batcher = RedisTailer(redis, FIELD), RedisBatcher(redis, FIELD, round(lifetime))
        async with run_in_background(tailer.run()), run_in_background(batcher.run()):
            yield RedisStreamLog(redis, namespace, tailer, batcher, BatchCipher(keys))
    finally:
        await redis.aclose()


class RedisStreamLog:
    """Keys are `sevenfold:stream:<namespace>:<workflow id>`."""

    def __init__(
        self, redis: "Redis", namespace: str, tailer: RedisTailer, batcher: RedisBatcher, cipher: BatchCipher
    ) -> None:
        self._redis = redis
        self._prefix = f"sevenfold:stream:{namespace}:"
        self._tailer = tailer
        self._batcher = batcher
        self._cipher = cipher

    def writer(self, workflow_id: str, deadline: datetime, *, is_retry: bool) -> "RedisStreamWriter":
        """A writer for one attempt of the run; a stream in Redis has neither deadline nor limit."""
        return RedisStreamWriter(self._prefix + workflow_id, self._batcher, self._cipher)

    def write_interval(self, *, has_local_readers: bool, age_seconds: float, writer_count: int) -> float:
        """Seconds between two writes; see `sevenfold.contracts.runs.streams.StreamLog`."""
        return _LOCAL_WRITE_INTERVAL_SECONDS if has_local_readers else _WRITE_INTERVAL_SECONDS

    async def read(self, workflow_id: str, position: bytes | None, *, wait: bool) -> StreamPage:
        """The next batches; `position` is the id of the last one."""
        key = self._prefix + workflow_id
        try:
            batches = [] if wait and self._tailer.is_tailing(key, position) else await self._read_after(key, position)
            if not batches and wait:
                batches = await self._tailer.wait_after(key, position)
        except RedisError as error:
            raise StreamLogError(f"Redis: {error}") from error
        try:
            lines = [line for _, value in batches for line in self._cipher.decrypt(key, value).split(b"\n")]
        except DecryptionError as error:
            raise StreamLogError(str(error)) from error
        entries = [StreamEntry(line) for line in lines]
        return StreamPage(entries, batches[-1][0] if batches else position, has_more=len(batches) == _PAGE)

    async def read_now(self, workflow_id: str, position: bytes | None) -> StreamPage:
        """What the log has at the moment."""
        return await self.read(workflow_id, position, wait=False)

    async def last_index(self, workflow_id: str) -> Index:
        """The first part of the last entry's id."""
        try:
            found: Any = await propagate_cancel(self._redis.xrevrange(self._prefix + workflow_id, count=1))
        except RedisError as error:
            raise StreamLogError(f"Redis: {error}") from error
        return int(found[0][0].partition(b"-")[0]) if found else 0

    async def check_reachable(self) -> None:
        """Pings Redis. Raises StreamLogError."""
        try:
            await propagate_cancel(self._redis.ping())
        except RedisError as error:
            raise StreamLogError(f"Redis: {error}") from error

    async def remove_tenant(self, tenant: str) -> int:
        """Removes the streams of a tenant's runs; returns their number. A call that is still running may write more,
        which expire.
        """
        pattern = _escape_glob(self._prefix) + build_workflow_id(tenant, "*")
        cursor, removed = 0, 0
        try:
            while True:
                found: Any = await propagate_cancel(self._redis.scan(cursor, match=pattern, count=_SCAN_COUNT))
                cursor, keys = found
                if keys:
                    removed += await propagate_cancel(self._redis.unlink(*keys))
                if not int(cursor):
                    return removed
        except RedisError as error:
            raise StreamLogError(f"Redis: {error}") from error

    async def _read_after(self, key: str, position: bytes | None) -> list[tuple[bytes, bytes]]:
        first = b"-" if position is None else b"(" + position
        found: Any = await propagate_cancel(self._redis.xrange(key, min=first, count=_PAGE))
        return [(identity, fields[FIELD]) for identity, fields in found]


def _escape_glob(text: str) -> str:
    return _GLOB.sub(r"\\\g<0>", text)


class RedisStreamWriter:
    """Writes batches. One that is sent twice is kept twice, with the same indexes: readers take each index once."""

    def __init__(self, key: str, batcher: RedisBatcher, cipher: BatchCipher) -> None:
        self._key = key
        self._batcher = batcher
        self._cipher = cipher
        self._renew_at = 0.0

    async def append(self, entries: Sequence[StreamEntry]) -> None:
        """See `sevenfold.contracts.runs.streams.StreamWriter`."""
        # JSON has no raw line breaks.
        value = self._cipher.encrypt(self._key, b"\n".join(entry.data for entry in entries))
        now = time.monotonic()
        renews = now >= self._renew_at
        try:
            await self._batcher.write(StreamWrite(self._key, f"{entries[-1].index}-*", value, renews))
        except ResponseError as error:
            if "equal or smaller" in str(error):
                raise StreamClosedError("A later attempt writes this stream.") from error
            raise StreamLogError(f"Redis: {error}") from error
        except RedisError as error:
            raise StreamLogError(f"Redis: {error}") from error

        if renews:
            self._renew_at = now + _RENEW_SECONDS

    async def finish(self) -> None:
        """Redis holds nothing open for a run."""
