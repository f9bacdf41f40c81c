"""One reader of a stream: a cursor, and nothing else that could grow."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from adapters.streams.live import LiveStream, LiveStreams
from contracts.streams import EntryKind, StreamEntry, StreamLog, StreamLogError

_LOG_PAUSE_SECONDS = 0.5


class StreamGoneError(Exception):
    """What came after `index` was told once, and is not kept any more."""

    def __init__(self, index: int) -> None:
        super().__init__(f"what came after {index} is gone")
        self.index = index


async def entries_after(
    streams: LiveStreams, stream: LiveStream, index: int, *, beat: float
) -> AsyncIterator[list[StreamEntry]]:
    """What comes after `index`, as it comes; an empty list after every `beat` seconds without news.

    Ends when the stream is complete, or when this process is about to stop. A reader who is too slow for the tail is
    served from the log until it has caught up. Raises StreamGoneError.
    """
    cursor = _Cursor(index)
    sequence: int | None = None
    catching_up = _CatchingUp(stream)
    while not streams.stopping.is_set():
        tail = stream.tail
        if sequence is None or sequence < tail.before_first:
            if cursor.index < tail.base:
                sequence = None
                if found := await catching_up.next_entries(beat):
                    yield cursor.take(found)
                elif not await tail.changed(_LOG_PAUSE_SECONDS):
                    yield []
                continue
            sequence = tail.before_first
        if found := tail.since(sequence):
            sequence += len(found)
            if fresh := cursor.take(found):
                yield fresh
        elif stream.complete:
            cursor.check_end(stream.end().last_index)
            return
        else:
            stream.check()
            if not await tail.changed(beat):
                yield []


async def kept_entries_after(
    log: StreamLog, workflow_id: str, index: int, last_index: int | None
) -> AsyncIterator[list[StreamEntry]]:
    """What the log kept after `index` of a run that has ended, with `last_index` if that is known.

    Raises StreamGoneError.
    """
    cursor = _Cursor(index)
    position: Any = None
    while True:
        try:
            page = await log.read(workflow_id, position, wait=False)
        except StreamLogError:
            await asyncio.sleep(_LOG_PAUSE_SECONDS)
            yield []
            continue
        position = page.position
        if fresh := cursor.take(page.entries):
            yield fresh
        if not page.more:
            cursor.check_end(last_index)
            return


class _Cursor:
    """The index of the last chunk or reset that the reader had."""

    def __init__(self, index: int) -> None:
        self.index = index

    def take(self, entries: list[StreamEntry]) -> list[StreamEntry]:
        """Those among them that are new to the reader. Raises StreamGoneError where one is missing before them."""
        fresh = []
        for entry in entries:
            if entry.index > self.index or (entry.kind is EntryKind.PROGRESS and entry.index == self.index):
                if entry.kind is EntryKind.CHUNK and entry.index > self.index + 1:
                    raise StreamGoneError(self.index)
                fresh.append(entry)
                self.index = entry.index
        return fresh

    def check_end(self, last_index: int | None) -> None:
        """Raises StreamGoneError when the stream went on beyond what the reader had."""
        if last_index is not None and self.index < last_index:
            raise StreamGoneError(self.index)


class _CatchingUp:
    """A reader's own way through the log, always forward."""

    def __init__(self, stream: LiveStream) -> None:
        self._stream = stream
        self._position: Any = None

    async def next_entries(self, beat: float) -> list[StreamEntry]:
        """The next entries of the log; none if there are none within `beat` seconds."""
        try:
            async with asyncio.timeout(beat):
                page = await self._stream.log.read(self._stream.workflow_id, self._position, wait=False)
        except TimeoutError:
            return []
        except StreamLogError:
            await asyncio.sleep(_LOG_PAUSE_SECONDS)
            return []
        self._position = page.position
        return page.entries
