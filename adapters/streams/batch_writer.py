"""Writes a hub's unconfirmed entries to the log: batches, pace, confirmation, back-pressure."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TypeVar

from sevenfold.adapters.metrics.streams import LOG_WRITES, OPEN_STREAMS
from sevenfold.adapters.streams.batches import FULL_BATCH, FULL_BATCH_BYTES, first_batch, latest_progress_only
from sevenfold.adapters.streams.hub import StreamHub, StreamHubs
from sevenfold.adapters.streams.light_event import LightEvent
from sevenfold.contracts.runs.streams import MAX_UNCONFIRMED, StreamLogError, StreamWriter

_MAX_UNCONFIRMED_BYTES = 2_000_000

# How long `drain` waits for a log that does not answer; then the attempt fails.
_DRAIN_TIMEOUT_SECONDS = 60.0
_FIRST_PAUSE, _MAX_PAUSE = 0.1, 2.0

Result = TypeVar("Result")


class WriterState(Enum):
    """What a writer's task does. The docstring of `BatchWriter` has the transitions."""

    STOPPED = "stopped"
    IDLE = "idle"
    WRITING = "writing"
    DRAINING = "draining"
    ENDED = "ended"


class BatchWriter:
    """Writes one attempt's entries behind the buffer.

    | state | task | |
    |---|---|---|
    | STOPPED | none | entries stay unconfirmed: the call has not been adopted |
    | IDLE | waits | everything is confirmed |
    | WRITING | runs | a batch waits for its time, or is being written |
    | DRAINING | runs | the attempt ends: no more pauses |
    | ENDED | has ended | |

    Transitions:
    - `notify`, by the publisher: STOPPED → WRITING.
    - The task: IDLE ↔ WRITING; DRAINING → ENDED when all is confirmed; any → ENDED when the log refuses this writer
      for good, which `notify`, `wait_for_room` and `drain` then raise.
    - `drain`, by the publisher: any but ENDED → DRAINING.
    - `halt` and `stop`, by the publisher: any → ENDED; the task is cancelled, and by `stop` awaited.

    Invariants:
    - One batch is under way at a time. Only a batch that the log has acknowledged is confirmed, and it is retried
      until then: none is dropped.
    - At most MAX_UNCONFIRMED entries are unconfirmed; beyond that `wait_for_room` holds up the agent.
    """

    def __init__(self, hubs: StreamHubs, hub: StreamHub, log_writer: StreamWriter, *, is_awaited: bool) -> None:
        self.state = WriterState.STOPPED
        self._hubs = hubs
        self._hub = hub
        self._log_writer = log_writer
        self._is_awaited = is_awaited
        self._opened_at = time.monotonic()
        self._last_write_at = 0.0
        self._has_work = LightEvent()
        self._batch_confirmed = LightEvent()
        self._task: asyncio.Task[None] | None = None
        hubs.writer_count += 1
        OPEN_STREAMS.inc()

    @property
    def is_full(self) -> bool:
        """Whether readers have as much as they may have before the log has it."""
        buffer = self._hub.buffer
        return buffer.unconfirmed_count >= MAX_UNCONFIRMED or buffer.unconfirmed_bytes >= _MAX_UNCONFIRMED_BYTES

    def notify(self) -> None:
        """The buffer has entries to write. Raises what ended the task."""
        if self._task is None:
            self.state = WriterState.WRITING
            self._task = asyncio.create_task(self._run(), name=f"stream of {self._hub.workflow_id}")
            self._task.add_done_callback(self._end)
        elif self._task.done():
            self._task.result()
        elif self.state is WriterState.IDLE or self._has_full_batch():
            self._has_work.set()

    async def wait_for_room(self) -> None:
        """Returns once the log is near enough. Raises what ended the task."""
        while self.is_full and self.state is not WriterState.ENDED:
            self._has_work.set()
            self._batch_confirmed.clear()
            if self._task is not None and self._task.done():
                self._task.result()
            await self._batch_confirmed.wait()

    async def drain(self) -> None:
        """Returns once the log has everything. Raises StreamLogError, StreamClosedError."""
        self.notify()
        assert self._task is not None, "notify starts it"  # noqa: S101
        if self.state is not WriterState.ENDED:
            self.state = WriterState.DRAINING
        self._has_work.set()
        done, _ = await asyncio.wait({self._task}, timeout=_DRAIN_TIMEOUT_SECONDS)
        if not done:
            raise StreamLogError("The log of the stream could not be written.")
        self._task.result()

    async def finish(self) -> None:
        """No attempt follows: releases what the log holds open for the run."""
        await self._log_writer.finish()

    def halt(self) -> None:
        """Cancels the task at once: a later attempt writes from now on."""
        self.state = WriterState.ENDED
        if self._task is not None:
            self._task.cancel()
        self._batch_confirmed.set()

    async def stop(self) -> None:
        """Ends the task; what is unconfirmed is not written. `drain` has raised what went wrong."""
        self._hubs.writer_count -= 1
        OPEN_STREAMS.dec()
        self.halt()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def _end(self, _: asyncio.Task[None]) -> None:
        self.state = WriterState.ENDED
        self._batch_confirmed.set()

    async def _run(self) -> None:
        while True:
            while not self._hub.buffer.unconfirmed_count:
                if self.state is WriterState.DRAINING:
                    return
                self.state = WriterState.IDLE
                self._has_work.clear()
                await self._has_work.wait()
                self._leave_idle()
            await self._wait_for_write_time()
            await self._write_batch()

    def _leave_idle(self) -> None:
        if self.state is WriterState.IDLE:  # not DRAINING
            self.state = WriterState.WRITING

    async def _wait_for_write_time(self) -> None:
        """A batch waits for its time, unless it is full or the last."""
        if self.state is WriterState.DRAINING or self._has_full_batch():
            return
        has_local_readers = self._hub.reader_count > 0
        if not self._last_write_at and self._is_awaited and not has_local_readers:
            return  # somebody elsewhere waits for the first chunk
        now = time.monotonic()
        pause = self._hubs.log.write_interval(
            has_local_readers=has_local_readers,
            age_seconds=now - self._opened_at,
            writer_count=self._hubs.writer_count,
        )
        # jitter: streams that started together must not all write at once
        delay = (self._last_write_at or self._opened_at) + pause * random.uniform(0.75, 1.25) - now
        if delay > 0:
            self._has_work.clear()
            await self._has_work.wait(delay)

    async def _write_batch(self) -> None:
        # a method of its own, so that a writer that waits for its time references no batch that is written
        buffer = self._hub.buffer
        batch = first_batch(buffer.unconfirmed)
        if not batch:  # discarded meanwhile
            return
        offset = buffer.confirmed_offset + len(batch)
        latest = latest_progress_only(batch)
        with LOG_WRITES.time():
            await retry_while_unreachable(lambda: self._log_writer.append(latest))
        self._last_write_at = time.monotonic()
        buffer.confirm(offset)
        self._batch_confirmed.set()

    def _has_full_batch(self) -> bool:
        buffer = self._hub.buffer
        return buffer.unconfirmed_count >= FULL_BATCH or buffer.unconfirmed_bytes >= FULL_BATCH_BYTES


async def retry_while_unreachable(request: Callable[[], Awaitable[Result]]) -> Result:
    """The request's result; repeated with growing pauses as long as it raises StreamLogError."""
    pause = _FIRST_PAUSE
    while True:
        try:
            return await request()
        except StreamLogError:
            await asyncio.sleep(pause)
            pause = min(_MAX_PAUSE, pause * 2)
