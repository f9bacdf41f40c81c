"""One reader of a stream: a cursor, and nothing else that could grow."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from sevenfold.adapters.streams.hub import StreamHub, StreamHubs
from sevenfold.contracts.streams import EntryKind, StreamEntry, StreamLog, StreamLogError

_LOG_PAUSE_SECONDS = 0.5


class StreamGoneError(Exception):
    """What came after `index` was told once, and is not kept any more."""

    def __init__(self, index: int) -> None:
        super().__init__(f"what came after {index} is gone")
        self.index = index


async def read_entries_after(
    hubs: StreamHubs, hub: StreamHub, index: int, *, heartbeat_seconds: float
) -> AsyncIterator[list[StreamEntry]]:
    """What comes after `index`, as it comes; an empty list after every `heartbeat_seconds` seconds without news.

    Ends when the stream is complete, or when this process is about to stop. A reader who is too slow for the tail is
    served from the log until it has caught up. Raises StreamGoneError.
    """
    cursor = _Cursor(index)
    sequence: int | None = None
    log_reader = _LogReader(hub)
    while not hubs.stopping.is_set():
        buffer = hub.buffer
        if sequence is None or sequence < buffer.before_first:
            if cursor.index < buffer.base_index:
                sequence = None
                if found := await log_reader.next_entries(heartbeat_seconds):
                    yield cursor.advance(found)
                elif not await buffer.wait_for_change(_LOG_PAUSE_SECONDS):
                    yield []
                continue
            sequence = buffer.before_first
        if found := buffer.entries_since(sequence):
            sequence += len(found)
            if fresh := cursor.advance(found):
                yield fresh
        elif hub.is_complete:
            cursor.check_end(hub.outcome().last_index)
            return
        else:
            hub.raise_if_failed()
            if not await buffer.wait_for_change(heartbeat_seconds):
                yield []


async def read_logged_entries_after(
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
        if fresh := cursor.advance(page.entries):
            yield fresh
        if not page.has_more:
            cursor.check_end(last_index)
            return


class _Cursor:
    """The index of the last chunk or reset that the reader had."""

    def __init__(self, index: int) -> None:
        self.index = index

    def advance(self, entries: list[StreamEntry]) -> list[StreamEntry]:
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


class _LogReader:
    """A reader's own way through the log, always forward."""

    def __init__(self, hub: StreamHub) -> None:
        self._hub = hub
        self._position: Any = None

    async def next_entries(self, heartbeat_seconds: float) -> list[StreamEntry]:
        """The next entries of the log; none if there are none within `heartbeat_seconds` seconds."""
        try:
            async with asyncio.timeout(heartbeat_seconds):
                page = await self._hub.log.read(self._hub.workflow_id, self._position, wait=False)
        except TimeoutError:
            return []
        except StreamLogError:
            await asyncio.sleep(_LOG_PAUSE_SECONDS)
            return []
        self._position = page.position
        return page.entries
