"""One reader of a stream: an index, and nothing else that could grow."""

import asyncio
from collections.abc import AsyncIterator

from sevenfold.adapters.streams.hub import StreamHub, StreamHubs
from sevenfold.contracts.runs.streams import (
    EntryKind,
    Index,
    LogPosition,
    Offset,
    StreamEntry,
    StreamLog,
    StreamLogError,
)

_LOG_PAUSE_SECONDS = 0.5


class StreamGoneError(Exception):
    """The entries after `index` were published, but are not kept any more."""

    def __init__(self, index: Index) -> None:
        super().__init__(f"the entries after {index} are gone")
        self.index = index


async def read_entries_after(
    hubs: StreamHubs, hub: StreamHub, index: Index, *, heartbeat_seconds: float
) -> AsyncIterator[list[StreamEntry]]:
    """The entries after `index`, as they come; an empty list after every `heartbeat_seconds` without one.

    Ends when the stream is complete, or when this process is about to stop. A reader who is too slow for the buffer
    reads from the log until it has caught up. Raises StreamGoneError.
    """
    cursor = _Cursor(index)
    offset: Offset | None = None
    log_reader = _LogReader(hub)
    buffer = hub.buffer
    while not hubs.stopping.is_set():
        if offset is None or offset < buffer.start_offset:
            if cursor.index < buffer.evicted_index:
                offset = None
                if found := await log_reader.next_entries(cursor.index, heartbeat_seconds):
                    yield cursor.advance(found)
                elif not await buffer.wait_for_change(_LOG_PAUSE_SECONDS):
                    yield []
                continue
            offset = buffer.start_offset
        if found := buffer.entries_after(offset):
            offset += len(found)
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
    log: StreamLog, workflow_id: str, index: Index, last_index: Index | None
) -> AsyncIterator[list[StreamEntry]]:
    """The log's entries after `index`, of a run that has ended, with `last_index` if that is known.

    Raises StreamGoneError.
    """
    cursor = _Cursor(index)
    position: LogPosition = None
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
    """The index of the last chunk or reset that the reader has."""

    def __init__(self, index: Index) -> None:
        self.index = index

    def advance(self, entries: list[StreamEntry]) -> list[StreamEntry]:
        """The entries that the reader does not have yet. Raises StreamGoneError where one is missing before them."""
        fresh = []
        for entry in entries:
            index = entry.index
            if index > self.index or (index == self.index and not entry.kind.has_index):
                if index > self.index + 1 and entry.kind is EntryKind.CHUNK:
                    raise StreamGoneError(self.index)
                fresh.append(entry)
                self.index = index
        return fresh

    def check_end(self, last_index: Index | None) -> None:
        """Raises StreamGoneError if the stream continued beyond what the reader has."""
        if last_index is not None and self.index < last_index:
            raise StreamGoneError(self.index)


class _LogReader:
    """A reader's own way through the log, always forward."""

    def __init__(self, hub: StreamHub) -> None:
        self._hub = hub
        self._position: LogPosition = None

    async def next_entries(self, index: Index, heartbeat_seconds: float) -> list[StreamEntry]:
        """The next entries of the log; none if there are none within `heartbeat_seconds`.

        Raises StreamGoneError, for a reader at `index`, if the stream is complete and the log has nothing further;
        and what ended the hub's feeding.
        """
        self._hub.raise_if_failed()
        try:
            async with asyncio.timeout(heartbeat_seconds):
                page = await self._hub.log.read(self._hub.workflow_id, self._position, wait=False)
        except TimeoutError:
            return []
        except StreamLogError:
            await asyncio.sleep(_LOG_PAUSE_SECONDS)
            return []
        self._position = page.position
        if self._hub.is_complete and not page.entries and not page.has_more:
            raise StreamGoneError(index)
        return page.entries
