"""The agent's end of a stream: into the buffer at once, into the log behind it."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from sevenfold.adapters.metrics.streams import RESETS
from sevenfold.adapters.streams.batch_writer import BatchWriter, retry_while_unreachable
from sevenfold.adapters.streams.hub import StreamHubs
from sevenfold.adapters.streams.latest_progress import LatestProgress
from sevenfold.adapters.streams.light_event import LightEvent
from sevenfold.adapters.streams.replayed_text import ReplayedText
from sevenfold.contracts.agents.steps import StreamMark
from sevenfold.contracts.runs.streams import (
    MAX_UNCONFIRMED,
    RESET_STEP,
    Index,
    StreamClosedError,
    StreamEntry,
    StreamWriter,
)

# Text from before anybody asked is published in chunks of this length.
_CATCH_UP_CHUNK_CHARACTERS = 8_000


@dataclass(frozen=True, slots=True)
class StreamAttempt:
    """One attempt of a run's agent call. `is_retry`: an attempt before may have readers, who need a reset.
    `first_index`: this life's indexes are above it. `is_awaited`: somebody waits for the first chunk, here or
    elsewhere; otherwise nothing is published before `start_publishing`. `mark`: the earlier text that this attempt
    writes again, if its agent is durable; while it matches, readers get no reset.
    """

    number: int
    is_retry: bool = False
    first_index: Index = 0
    is_awaited: bool = False
    mark: StreamMark | None = None


class PublisherState(Enum):
    """What becomes of the agent's text. The docstring of `StreamPublisher` has the transitions."""

    BUFFERING = "buffering"
    REQUESTED = "requested"
    OPENING = "opening"
    LOCAL_ONLY = "local only"
    LOGGED = "logged"
    CLOSED = "closed"


class StreamPublisher:
    """One attempt's publisher.

    | state | the agent's text |
    |---|---|
    | BUFFERING | stays here: nobody has asked for it, and the result is the stream |
    | REQUESTED | somebody has asked, and there is none yet |
    | OPENING | stays here: the log's last index is looked up, then a retry is announced by a reset |
    | LOCAL_ONLY | goes to readers in this process; the log gets it once the call has been adopted |
    | LOGGED | goes to readers in this process, and to the log |
    | CLOSED | none: the attempt has ended |

    Transitions:
    - An attempt starts in REQUESTED if it is awaited, else in BUFFERING.
    - BUFFERING → OPENING: `start_publishing`, by the hub for a reader here, by the worker for a reader elsewhere; and
      by the agent's own task for a retry whose earlier attempt is in the log. A task of this class then opens.
    - REQUESTED → OPENING: the agent's first chunk or progress; the agent's own task opens.
    - OPENING → LOGGED, or → LOCAL_ONLY while the call awaits its adoption.
    - LOCAL_ONLY → LOGGED: `confirm_adoption`, by the activity that adopts the call.
    - Any → CLOSED: `close`, by the agent's own task; it detaches from the hub. And `supersede`, by the hub, when a
      later attempt attaches: from then on `publish_…` and `close` raise StreamClosedError, so that two attempts never
      write one buffer.

    `publish_…` and `close` are called by the agent's own task alone.
    """

    def __init__(
        self,
        hubs: StreamHubs,
        workflow_id: str,
        attempt: StreamAttempt,
        deadline: datetime,
        *,
        awaits_adoption: bool = False,
    ) -> None:
        self._hubs = hubs
        self._hub = hubs.get(workflow_id)
        self._attempt = attempt
        self._log_writer: StreamWriter = hubs.log.writer(workflow_id, deadline, is_retry=attempt.is_retry)
        self._state = PublisherState.REQUESTED if attempt.is_awaited else PublisherState.BUFFERING
        self._replayed = ReplayedText(attempt.mark) if attempt.mark is not None and attempt.mark.index else None
        self._resets = attempt.is_retry
        self._adopted = LightEvent()
        if not awaits_adoption:
            self._adopted.set()
        self._kept_index: Index = 0  # the log's last index, while this attempt only repeats logged text
        self._unpublished = bytearray()
        self._progress = LatestProgress()
        self._opening: asyncio.Task[BatchWriter] | None = None
        self._writer: BatchWriter | None = None
        self._hub.attach(self)

    @property
    def is_buffering(self) -> bool:
        """Whether nobody has asked for the text yet."""
        return self._state is PublisherState.BUFFERING

    @property
    def last_index(self) -> Index:
        """The last index that readers may have; 0 if nobody has asked for the text."""
        return 0 if self.is_buffering else self._hub.buffer.last_index

    def start_publishing(self) -> None:
        """Somebody asks for the text: publishes what there is of it, and from now on everything."""
        if self._state is PublisherState.BUFFERING:
            self._state = PublisherState.OPENING
            self._opening = asyncio.create_task(self._open(), name=f"opens the stream of {self._hub.workflow_id}")

    def confirm_adoption(self) -> None:
        """The call was adopted: what is published goes to the log too."""
        self._adopted.set()
        if self._state is PublisherState.LOCAL_ONLY:
            self._state = PublisherState.LOGGED
            if self._writer is not None and self._hub.buffer.unconfirmed_count:
                self._writer.notify()

    def supersede(self) -> None:
        """A later attempt feeds the hub: nothing of this one is published or written any more."""
        self._state = PublisherState.CLOSED
        self._adopted.set()
        if self._opening is not None:
            self._opening.cancel()
        if self._writer is not None:
            self._writer.halt()

    def _raise_if_superseded(self) -> None:
        if self._state is PublisherState.CLOSED:
            raise StreamClosedError("A later attempt publishes this stream.")

    async def wait_for_adoption(self) -> None:
        """In LOCAL_ONLY the log has nothing of what somebody awaits."""
        if self._state is PublisherState.LOCAL_ONLY and self._attempt.is_awaited:
            await self._adopted.wait()

    async def publish_chunk(self, text: str) -> None:
        """Publishes a piece of the response. Waits while the log is too far behind. Raises what `close` does."""
        self._raise_if_superseded()
        if self._replayed is not None:
            if self._replayed.add(text):
                await self._end_replay()
            return
        if self.is_buffering and self._resets and not self._unpublished and await self._last_logged_index():
            self.start_publishing()  # readers have something of an attempt before
        if self.is_buffering:
            self._unpublished += text.encode()
            return
        writer = self._writer or await self._ensure_open()
        if writer.is_full:
            await writer.wait_for_room()
        self._raise_if_superseded()
        self._publish(writer, StreamEntry.chunk(self._hub.buffer.last_index + 1, text))

    async def _end_replay(self) -> None:
        """Continues after the replayed text, if this is the same and nothing followed it; else voids it."""
        replayed, self._replayed = self._replayed, None
        if replayed is None:
            return
        logged = await self._last_logged_index()
        # Decided without a pause: a reader may have come meanwhile, and a reset with it.
        follows = self._hub.buffer.last_index <= replayed.mark.index == logged
        if replayed.matches and follows:
            self._resets, self._kept_index = False, logged
            self.start_publishing()
            text = replayed.rest()
        else:
            text = replayed.whole()
        if text:
            await self.publish_chunk(text)

    async def publish_questions(self, questions: str) -> None:
        """Publishes questions to readers; `questions` is a list in JSON."""
        await self._end_replay()
        if self.is_buffering:
            return
        writer = await self._ensure_open()
        self._raise_if_superseded()
        self._publish(writer, StreamEntry.input_required(self._hub.buffer.last_index, questions))

    async def publish_progress(self, percent: float, note: str) -> None:
        """Publishes how far the work is. Any single progress may be dropped, and a run that nobody follows has its
        heartbeats instead.
        """
        self._raise_if_superseded()
        if self.is_buffering or not (self._attempt.is_awaited or self._hub.reader_count):
            return
        writer = await self._ensure_open()
        self._raise_if_superseded()
        self._progress.set(percent, note)
        if self._progress.is_due:
            self._publish_progress(writer)

    async def publish_response(self, text: str) -> None:
        """Publishes the response of an agent that does not stream, if readers may have chunks of an earlier attempt,
        after the reset. All others get it from the result. Raises what `close` does.
        """
        if self._resets and (self._state is not PublisherState.REQUESTED or await self._readers_have_text()):
            await self.publish_chunk(text)  # or keeps it for a reader who comes before the end

    async def _readers_have_text(self) -> bool:
        return bool(self._hub.buffer.last_index or await self._last_logged_index())

    async def _void_earlier_text(self) -> None:
        """An attempt that ends without any text has a reset all the same."""
        has_text = self._writer is not None or self._opening is not None or self._unpublished
        if self._resets and not has_text and await self._readers_have_text():
            self.start_publishing()
            await self._ensure_open()

    async def close(self, *, is_final: bool = False) -> Index:
        """Ends the attempt; returns the last index that the log keeps, 0 if it keeps nothing. `is_final`: no other
        attempt will follow.

        Raises StreamLogError if the log cannot be written, StreamClosedError if a later attempt writes it.
        """
        try:
            self._raise_if_superseded()
            await self._end_replay()
            if is_final:
                await self._void_earlier_text()
            if self._opening is not None:
                await self._opening
            if self._writer is None or self._state is not PublisherState.LOGGED:  # the result has all of it
                return self._kept_index
            self._publish_progress(self._writer)
            await self._writer.drain()
            if is_final:
                await self._writer.finish()
            return self._hub.buffer.last_index
        finally:
            await self._shut_down()

    async def _shut_down(self) -> None:
        self._state = PublisherState.CLOSED
        try:
            try:
                if self._opening is not None:
                    self._opening.cancel()
                    await asyncio.gather(self._opening, return_exceptions=True)
            finally:  # a second cancellation may come while it waits
                if self._writer is not None:
                    await self._writer.stop()
        finally:  # whatever became of them, readers must not wait for this attempt
            self._hub.detach(self)
            self._hubs.discard_if_idle(self._hub)

    async def _ensure_open(self) -> BatchWriter:
        if self._writer is not None:
            return self._writer
        if self._opening is not None:
            return await asyncio.shield(self._opening)
        self._state = PublisherState.OPENING
        return await self._open()

    async def _open(self) -> BatchWriter:
        buffer = self._hub.buffer
        if self._attempt.is_retry:
            last_index = max(await self._last_logged_index(), self._attempt.first_index)
            if buffer.last_index < last_index:
                buffer.restart_after(last_index)
            buffer.discard_unconfirmed()
        self._state = PublisherState.LOGGED if self._adopted.is_set else PublisherState.LOCAL_ONLY
        writer = self._writer = BatchWriter(
            self._hubs, self._hub, self._log_writer, is_awaited=self._attempt.is_awaited
        )
        if self._resets:
            RESETS.inc()
            self._publish(writer, StreamEntry.reset(buffer.last_index + RESET_STEP, self._attempt.number))
        text = self._unpublished.decode()
        self._unpublished.clear()
        # Fewer chunks than may be unconfirmed, whatever the text's length: readers have them before the log does.
        size = max(_CATCH_UP_CHUNK_CHARACTERS, 2 * len(text) // MAX_UNCONFIRMED + 1)
        for start in range(0, len(text), size):
            chunk = text[start : start + size]
            self._publish(writer, StreamEntry.chunk(buffer.last_index + 1, chunk))
        return writer

    async def _last_logged_index(self) -> Index:
        return await retry_while_unreachable(lambda: self._hubs.log.last_index(self._hub.workflow_id))

    def _publish(self, writer: BatchWriter, entry: StreamEntry) -> None:
        self._hub.buffer.append(entry, confirmed=False)
        if self._state is PublisherState.LOGGED:
            writer.notify()

    def _publish_progress(self, writer: BatchWriter) -> None:
        if not writer.is_full and (latest := self._progress.take()) is not None:
            self._publish(writer, StreamEntry.progress(self._hub.buffer.last_index, *latest))
