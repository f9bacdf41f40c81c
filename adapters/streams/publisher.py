"""The agent's end of a stream: into the tail at once, into the log in batches behind it."""

import asyncio
import random
import time
from contextlib import suppress
from datetime import datetime
from enum import Enum

from adapters.streams.batches import FULL_BATCH, FULL_BATCH_BYTES, first_batch, latest_progress_only
from adapters.streams.live import LiveStreams
from adapters.streams.wakeup import Wakeup
from contracts.streams import (
    MOST_UNCONFIRMED,
    RESET_STEP,
    StreamClosedError,
    StreamEntry,
    StreamLogError,
)

_MOST_UNCONFIRMED_BYTES = 2_000_000

# How long the end of a call waits for a log that does not answer, before the whole call is in vain.
_CLOSING_SECONDS = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0

# What was said before somebody asked for it comes in pieces of this length.
_CAUGHT_UP_CHARACTERS = 8_000

# An agent may tell its progress as often as it likes; readers are told the latest, this often.
_PROGRESS_SECONDS = 0.25


class _Mode(Enum):
    """What becomes of the text. It goes from `KEPT` to `HELD` or `WRITTEN`, and from `HELD` to `WRITTEN`.

    `KEPT`: nobody has asked for it, so it stays here, and the result is the stream. `HELD`: readers in this process
    have it; the log gets it once the call has been adopted. `WRITTEN`: the log gets it too.
    """

    KEPT = "kept"
    HELD = "held"
    WRITTEN = "written"


class StreamPublisher:
    """One attempt's publisher. `repeated`: the agent was called before, so what it said then is reset.

    `held`: the call has not been adopted yet, which `release` tells. `awaited`: somebody waits for the first chunk,
    here or elsewhere; else nothing is published before `want`.
    """

    def __init__(
        self,
        streams: LiveStreams,
        workflow_id: str,
        attempt: int,
        deadline: datetime,
        *,
        repeated: bool = False,
        first_index: int = 0,
        held: bool = False,
        awaited: bool = False,
    ) -> None:
        self._streams = streams
        self._stream = streams.of(workflow_id)
        self._tail = self._stream.tail
        self._writer = streams.log.writer(workflow_id, deadline, repeated=repeated)
        self._attempt = attempt
        self._repeated = repeated
        self._first_index = first_index
        self._released = Wakeup()
        if not held:
            self._released.set()
        self._awaited = awaited
        self._mode = self._published_mode if awaited else _Mode.KEPT
        self._kept = bytearray()
        self._catching_up: asyncio.Task[None] | None = None
        self._begun: float | None = None
        self._closing = False
        self._to_write = Wakeup()
        self._idle = False
        self._written = Wakeup()
        self._progress: tuple[float, str] | None = None
        self._progress_at = 0.0
        self._last_write = 0.0
        self._writing: asyncio.Task[None] | None = None
        self._stream.attach(self)

    @property
    def _published_mode(self) -> _Mode:
        return _Mode.WRITTEN if self._released.is_set else _Mode.HELD

    @property
    def is_kept(self) -> bool:
        """Whether nobody has asked for the text yet."""
        return self._mode is _Mode.KEPT and self._catching_up is None

    def want(self) -> None:
        """Somebody asks for the text: what there is of it is published, and from now on all."""
        if self.is_kept:
            self._catching_up = asyncio.create_task(self._catch_up(), name="a stream catches up")

    async def _catch_up(self) -> None:
        await self._begin()
        text = self._kept.decode()
        self._kept.clear()
        self._mode = self._published_mode
        for start in range(0, len(text), _CAUGHT_UP_CHARACTERS):
            piece = text[start : start + _CAUGHT_UP_CHARACTERS]
            self._tell(StreamEntry.chunk(self._tail.last_index + 1, piece))

    async def chunk(self, text: str) -> None:
        """Tells a piece of the response. Waits when the log is too far behind. Raises what `close` does."""
        if self.is_kept and self._repeated and not self._kept and await self._kept_so_far():
            self.want()  # readers know something of an attempt before
        if self.is_kept:
            self._kept += text.encode()
            return
        if self._catching_up is not None:
            await asyncio.shield(self._catching_up)
        await self._begin()
        while self._too_far_ahead():
            self._to_write.set()
            self._written.clear()
            self._raise_if_broken()
            await self._written.wait()
        self._tell(StreamEntry.chunk(self._tail.last_index + 1, text))

    async def progress(self, percent: float, note: str) -> None:
        """Tells how far the work is; readers can do without any single one of these. Those of runs that nobody
        follows are not kept: their heartbeats tell as much.
        """
        if self.is_kept or not (self._awaited or self._stream.readers):
            return
        await self._begin()
        self._progress = percent, note
        if time.monotonic() - self._progress_at >= _PROGRESS_SECONDS:
            self._tell_progress()

    async def until_released(self) -> None:
        """While it is held, the log has nothing of what somebody awaits."""
        if self._mode is _Mode.HELD and self._awaited and self._begun is not None:
            await self._released.wait()

    def _tell_progress(self) -> None:
        if self._progress is not None and not self._too_far_ahead():
            self._tell(StreamEntry.progress(self._tail.last_index, *self._progress))
            self._progress, self._progress_at = None, time.monotonic()

    async def whole(self, text: str) -> None:
        """The response of a call that said nothing before it. The result has it, and readers get it from there; only
        those who may have heard an earlier attempt are told here, after the reset. Raises what `close` does.
        """
        if self._repeated and (self._tail.last_index or await self._kept_so_far()):
            await self.chunk(text)

    def release(self) -> None:
        """The call was adopted: the log may have everything that somebody asks for."""
        self._released.set()
        if self._mode is not _Mode.HELD:
            return
        self._mode = _Mode.WRITTEN
        if self._tail.unconfirmed_count and self._begun is not None:
            self._write_on()

    async def close(self, *, answered: bool = False) -> int:
        """Says that nothing more comes; returns the last index that the log keeps, 0 if it keeps nothing. `answered`:
        no other attempt will follow.

        Raises StreamLogError when the log cannot be written, StreamClosedError when this attempt is out of its time.
        """
        try:
            if self._catching_up is not None:
                await self._catching_up
            if self._begun is None or self._mode is not _Mode.WRITTEN:  # the result says it all
                return 0
            self._tell_progress()
            self._closing = True
            self._write_on()
            self._to_write.set()
            await self._drained()
            if answered:
                await self._writer.finish()
            return self._tail.last_index
        finally:
            await self._end()

    async def _drained(self) -> None:
        if self._writing is None:
            return
        done, _ = await asyncio.wait({self._writing}, timeout=_CLOSING_SECONDS)
        if not done:
            raise StreamLogError("The log of the stream could not be written.")
        self._writing.result()

    async def _end(self) -> None:
        for task in (self._catching_up, self._writing):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError, StreamLogError, StreamClosedError):
                    await task
        if self._begun is not None:
            self._streams.writers -= 1
            self._begun = None
        self._stream.detach(self)
        self._streams.forget(self._stream)

    async def _begin(self) -> None:
        if self._begun is not None:
            return
        if self._repeated:
            kept = max(await self._kept_so_far(), self._first_index)
            if self._tail.last_index < kept:
                self._tail.begin_after(kept)
            self._tail.confirm_lost()
        self._begun = time.monotonic()
        self._streams.writers += 1
        if self._repeated:
            self._tell(StreamEntry.reset(self._tail.last_index + RESET_STEP, self._attempt))

    async def _kept_so_far(self) -> int:
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._streams.log.last_index(self._stream.workflow_id)
            except StreamLogError:
                await asyncio.sleep(pause)
                pause = min(_LONGEST_PAUSE, pause * 2)

    def _tell(self, entry: StreamEntry) -> None:
        self._tail.append(entry, confirmed=False)
        if self._idle or self._full():
            self._to_write.set()
        if self._mode is _Mode.WRITTEN:
            self._write_on()

    def _too_far_ahead(self) -> bool:
        return (
            self._tail.unconfirmed_count >= MOST_UNCONFIRMED
            or self._tail.unconfirmed_bytes >= _MOST_UNCONFIRMED_BYTES
        )

    def _full(self) -> bool:
        return self._tail.unconfirmed_count >= FULL_BATCH or self._tail.unconfirmed_bytes >= FULL_BATCH_BYTES

    def _raise_if_broken(self) -> None:
        if self._writing is not None and self._writing.done():
            self._writing.result()

    def _write_on(self) -> None:
        self._raise_if_broken()
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name=f"stream of {self._stream.workflow_id}")
            self._writing.add_done_callback(lambda _: self._written.set())

    async def _write(self) -> None:
        """Ends when the publisher closes and everything is kept."""
        while True:
            while not self._tail.unconfirmed_count:
                if self._closing:
                    return
                self._to_write.clear()
                self._idle = True
                await self._to_write.wait()
                self._idle = False
            await self._until_its_time()
            await self._write_batch()

    async def _write_batch(self) -> None:
        # by itself, so that a writer that waits for its time holds no batch that is written
        batch = first_batch(self._tail.unconfirmed)
        last = self._tail.confirmed + len(batch)
        await self._append(latest_progress_only(batch))
        self._last_write = time.monotonic()
        self._tail.confirm(last)
        self._written.set()

    async def _until_its_time(self) -> None:
        """A batch waits for its time, unless it is full or the last."""
        if self._closing or self._full() or self._begun is None:
            return
        here = self._stream.readers > 0
        now = time.monotonic()
        if not self._last_write and self._awaited and not here:
            return  # nobody waits for a first chunk
        pause = self._streams.log.pause(followed_here=here, age=now - self._begun, writers=self._streams.writers)
        # Streams that began together shall not all write at once.
        delay = (self._last_write or self._begun) + pause * random.uniform(0.75, 1.25) - now
        self._to_write.clear()
        await self._to_write.wait(delay)

    async def _append(self, batch: list[StreamEntry]) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._writer.append(batch)
            except StreamLogError:
                await asyncio.sleep(pause)
                pause = min(_LONGEST_PAUSE, pause * 2)
            else:
                return
