"""The agent's end of a stream: into the tail at once, into the log in batches behind it."""

import asyncio
import random
import time
from contextlib import suppress
from datetime import datetime
from enum import Enum

from sevenfold.adapters.streams.batches import FULL_BATCH, FULL_BATCH_BYTES, first_batch, latest_progress_only
from sevenfold.adapters.streams.hub import StreamHubs
from sevenfold.adapters.streams.wakeup import LightEvent
from sevenfold.contracts.streams import (
    MAX_UNCONFIRMED,
    RESET_STEP,
    StreamClosedError,
    StreamEntry,
    StreamLogError,
)

_MAX_UNCONFIRMED_BYTES = 2_000_000

# How long the end of a call waits for a log that does not answer, before the whole call is in vain.
_CLOSE_TIMEOUT_SECONDS = 60.0
_FIRST_PAUSE, _MAX_PAUSE = 0.1, 2.0

# What was said before somebody asked for it comes in pieces of this length.
_CATCH_UP_CHUNK_CHARACTERS = 8_000

# An agent may tell its progress as often as it likes; readers are told the latest, this often.
_PROGRESS_SECONDS = 0.25


class _PublishMode(Enum):
    """What becomes of the text. It goes from `BUFFERING` to `LOCAL_ONLY` or `LOGGED`, and from `LOCAL_ONLY` to
    `LOGGED`.

    `BUFFERING`: nobody has asked for it, so it stays here, and the result is the stream. `LOCAL_ONLY`: readers in
    this process have it; the log gets it once the call has been adopted. `LOGGED`: the log gets it too.
    """

    BUFFERING = "kept"
    LOCAL_ONLY = "held"
    LOGGED = "written"


class StreamPublisher:
    """One attempt's publisher. `is_retry`: the agent was called before, so what it said then is reset.

    `awaits_adoption`: the call has not been adopted yet, which `confirm_adoption` tells. `is_awaited`: somebody waits
    for the first chunk, here or elsewhere; else nothing is published before `start_publishing`.
    """

    def __init__(
        self,
        hubs: StreamHubs,
        workflow_id: str,
        attempt: int,
        deadline: datetime,
        *,
        is_retry: bool = False,
        first_index: int = 0,
        awaits_adoption: bool = False,
        is_awaited: bool = False,
    ) -> None:
        self._hubs = hubs
        self._hub = hubs.get(workflow_id)
        self._buffer = self._hub.buffer
        self._writer = hubs.log.writer(workflow_id, deadline, is_retry=is_retry)
        self._attempt = attempt
        self._is_retry = is_retry
        self._first_index = first_index
        self._adopted = LightEvent()
        if not awaits_adoption:
            self._adopted.set()
        self._is_awaited = is_awaited
        self._mode = self._published_mode if is_awaited else _PublishMode.BUFFERING
        self._unpublished = bytearray()
        self._catch_up_task: asyncio.Task[None] | None = None
        self._started_at: float | None = None
        self._is_closing = False
        self._write_requested = LightEvent()
        self._writer_is_idle = False
        self._batch_written = LightEvent()
        self._pending_progress: tuple[float, str] | None = None
        self._progress_published_at = 0.0
        self._last_write_at = 0.0
        self._writer_task: asyncio.Task[None] | None = None
        self._hub.attach(self)

    @property
    def _published_mode(self) -> _PublishMode:
        return _PublishMode.LOGGED if self._adopted.is_set else _PublishMode.LOCAL_ONLY

    @property
    def is_buffering(self) -> bool:
        """Whether nobody has asked for the text yet."""
        return self._mode is _PublishMode.BUFFERING and self._catch_up_task is None

    def start_publishing(self) -> None:
        """Somebody asks for the text: what there is of it is published, and from now on all."""
        if self.is_buffering:
            self._catch_up_task = asyncio.create_task(self._catch_up(), name="a stream catches up")

    async def _catch_up(self) -> None:
        await self._start()
        text = self._unpublished.decode()
        self._unpublished.clear()
        self._mode = self._published_mode
        for start in range(0, len(text), _CATCH_UP_CHUNK_CHARACTERS):
            piece = text[start : start + _CATCH_UP_CHUNK_CHARACTERS]
            self._publish(StreamEntry.chunk(self._buffer.last_index + 1, piece))

    async def publish_chunk(self, text: str) -> None:
        """Tells a piece of the response. Waits when the log is too far behind. Raises what `close` does."""
        if self.is_buffering and self._is_retry and not self._unpublished and await self._last_logged_index():
            self.start_publishing()  # readers know something of an attempt before
        if self.is_buffering:
            self._unpublished += text.encode()
            return
        if self._catch_up_task is not None:
            await asyncio.shield(self._catch_up_task)
        await self._start()
        while self._is_too_far_ahead():
            self._write_requested.set()
            self._batch_written.clear()
            self._raise_if_broken()
            await self._batch_written.wait()
        self._publish(StreamEntry.chunk(self._buffer.last_index + 1, text))

    async def publish_progress(self, percent: float, note: str) -> None:
        """Tells how far the work is; readers can do without any single one of these. Those of runs that nobody
        follows are not kept: their heartbeats tell as much.
        """
        if self.is_buffering or not (self._is_awaited or self._hub.reader_count):
            return
        await self._start()
        self._pending_progress = percent, note
        if time.monotonic() - self._progress_published_at >= _PROGRESS_SECONDS:
            self._publish_latest_progress()

    async def wait_for_adoption(self) -> None:
        """While it is held, the log has nothing of what somebody awaits."""
        if self._mode is _PublishMode.LOCAL_ONLY and self._is_awaited and self._started_at is not None:
            await self._adopted.wait()

    def _publish_latest_progress(self) -> None:
        if self._pending_progress is not None and not self._is_too_far_ahead():
            self._publish(StreamEntry.progress(self._buffer.last_index, *self._pending_progress))
            self._pending_progress, self._progress_published_at = None, time.monotonic()

    async def publish_response(self, text: str) -> None:
        """The response of a call that said nothing before it. The result has it, and readers get it from there; only
        those who may have heard an earlier attempt are told here, after the reset. Raises what `close` does.
        """
        if self._is_retry and (self._buffer.last_index or await self._last_logged_index()):
            await self.publish_chunk(text)

    def confirm_adoption(self) -> None:
        """The call was adopted: the log may have everything that somebody asks for."""
        self._adopted.set()
        if self._mode is not _PublishMode.LOCAL_ONLY:
            return
        self._mode = _PublishMode.LOGGED
        if self._buffer.unconfirmed_count and self._started_at is not None:
            self._ensure_writing()

    async def close(self, *, is_final: bool = False) -> int:
        """Says that nothing more comes; returns the last index that the log keeps, 0 if it keeps nothing. `is_final`:
        no other attempt will follow.

        Raises StreamLogError when the log cannot be written, StreamClosedError when this attempt is out of its time.
        """
        try:
            if self._catch_up_task is not None:
                await self._catch_up_task
            if self._started_at is None or self._mode is not _PublishMode.LOGGED:  # the result says it all
                return 0
            self._publish_latest_progress()
            self._is_closing = True
            self._ensure_writing()
            self._write_requested.set()
            await self._drain()
            if is_final:
                await self._writer.finish()
            return self._buffer.last_index
        finally:
            await self._shut_down()

    async def _drain(self) -> None:
        if self._writer_task is None:
            return
        done, _ = await asyncio.wait({self._writer_task}, timeout=_CLOSE_TIMEOUT_SECONDS)
        if not done:
            raise StreamLogError("The log of the stream could not be written.")
        self._writer_task.result()

    async def _shut_down(self) -> None:
        for task in (self._catch_up_task, self._writer_task):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError, StreamLogError, StreamClosedError):
                    await task
        if self._started_at is not None:
            self._hubs.writer_count -= 1
            self._started_at = None
        self._hub.detach(self)
        self._hubs.discard_if_idle(self._hub)

    async def _start(self) -> None:
        if self._started_at is not None:
            return
        if self._is_retry:
            logged_index = max(await self._last_logged_index(), self._first_index)
            if self._buffer.last_index < logged_index:
                self._buffer.restart_after(logged_index)
            self._buffer.discard_unconfirmed()
        self._started_at = time.monotonic()
        self._hubs.writer_count += 1
        if self._is_retry:
            self._publish(StreamEntry.reset(self._buffer.last_index + RESET_STEP, self._attempt))

    async def _last_logged_index(self) -> int:
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._hubs.log.last_index(self._hub.workflow_id)
            except StreamLogError:
                await asyncio.sleep(pause)
                pause = min(_MAX_PAUSE, pause * 2)

    def _publish(self, entry: StreamEntry) -> None:
        self._buffer.append(entry, confirmed=False)
        if self._writer_is_idle or self._has_full_batch():
            self._write_requested.set()
        if self._mode is _PublishMode.LOGGED:
            self._ensure_writing()

    def _is_too_far_ahead(self) -> bool:
        return (
            self._buffer.unconfirmed_count >= MAX_UNCONFIRMED
            or self._buffer.unconfirmed_bytes >= _MAX_UNCONFIRMED_BYTES
        )

    def _has_full_batch(self) -> bool:
        return self._buffer.unconfirmed_count >= FULL_BATCH or self._buffer.unconfirmed_bytes >= FULL_BATCH_BYTES

    def _raise_if_broken(self) -> None:
        if self._writer_task is not None and self._writer_task.done():
            self._writer_task.result()

    def _ensure_writing(self) -> None:
        self._raise_if_broken()
        if self._writer_task is None:
            self._writer_task = asyncio.create_task(self._write_batches(), name=f"stream of {self._hub.workflow_id}")
            self._writer_task.add_done_callback(lambda _: self._batch_written.set())

    async def _write_batches(self) -> None:
        """Ends when the publisher closes and everything is kept."""
        while True:
            while not self._buffer.unconfirmed_count:
                if self._is_closing:
                    return
                self._write_requested.clear()
                self._writer_is_idle = True
                await self._write_requested.wait()
                self._writer_is_idle = False
            await self._wait_for_write_time()
            await self._write_batch()

    async def _write_batch(self) -> None:
        # by itself, so that a writer that waits for its time holds no batch that is written
        batch = first_batch(self._buffer.unconfirmed)
        last = self._buffer.confirmed_sequence + len(batch)
        await self._append_with_retry(latest_progress_only(batch))
        self._last_write_at = time.monotonic()
        self._buffer.confirm(last)
        self._batch_written.set()

    async def _wait_for_write_time(self) -> None:
        """A batch waits for its time, unless it is full or the last."""
        if self._is_closing or self._has_full_batch() or self._started_at is None:
            return
        has_local_readers = self._hub.reader_count > 0
        now = time.monotonic()
        if not self._last_write_at and self._is_awaited and not has_local_readers:
            return  # nobody waits for a first chunk
        pause = self._hubs.log.write_interval(
            has_local_readers=has_local_readers,
            age_seconds=now - self._started_at,
            writer_count=self._hubs.writer_count,
        )
        # Streams that began together shall not all write at once.
        delay = (self._last_write_at or self._started_at) + pause * random.uniform(0.75, 1.25) - now
        self._write_requested.clear()
        await self._write_requested.wait(delay)

    async def _append_with_retry(self, batch: list[StreamEntry]) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._writer.append(batch)
            except StreamLogError:
                await asyncio.sleep(pause)
                pause = min(_MAX_PAUSE, pause * 2)
            else:
                return
