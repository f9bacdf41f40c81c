"""The newest entries of a stream in memory, shared by all readers in this process."""

import asyncio
from collections import deque
from itertools import islice

from sevenfold.contracts.runs.streams import Index, Offset, StreamEntry

# How much is kept beside the unconfirmed entries: some seconds of a model's output. A reader who falls further behind
# catches up from the log.
_MAX_ENTRIES = 64
_MAX_BYTES = 64_000


class ReplayBuffer:
    """A bounded run of entries, addressed by offset. A reader holds one offset; the buffer holds nothing per reader.

    Invariants:
    - start_offset <= confirmed_offset <= end_offset. The entries held are those after start_offset.
    - Entries after confirmed_offset are not in the log yet, and are never evicted.
    - `last_index` only rises; every entry after index `evicted_index` is held.
    """

    def __init__(self) -> None:
        self._entries: deque[StreamEntry] = deque()
        self._bytes = 0
        self._unnumbered = b""
        self._waiters: set[asyncio.Future[bool]] = set()
        self.end_offset: Offset = 0
        self.confirmed_offset: Offset = 0
        self.unconfirmed_bytes = 0
        self.last_index: Index = 0
        self.evicted_index: Index = 0

    @property
    def start_offset(self) -> Offset:
        """The offset before the oldest entry held."""
        return self.end_offset - len(self._entries)

    @property
    def unconfirmed(self) -> list[StreamEntry]:
        """The entries that the log does not have yet."""
        return self.entries_after(self.confirmed_offset)

    @property
    def unconfirmed_count(self) -> int:
        """The number of entries that the log does not have yet."""
        return self.end_offset - self.confirmed_offset

    def restart_after(self, index: Index) -> None:
        """Drops everything: entries up to this index have to be read from the log."""
        self._entries.clear()
        self._bytes = self.unconfirmed_bytes = 0
        self.end_offset += 1  # every reader is now before the start
        self.confirmed_offset = self.end_offset
        self.evicted_index = self.last_index = index
        self.notify()

    def append(self, entry: StreamEntry, *, confirmed: bool) -> None:
        """Adds the next entry. An entry that is here already is ignored."""
        index = entry.index
        if not entry.kind.has_index:
            if index < self.last_index or entry.data == self._unnumbered:
                return
            self._unnumbered = entry.data
        elif index <= self.last_index:
            return
        else:
            self.last_index = index
        self._entries.append(entry)
        self._bytes += entry.size
        self.end_offset += 1
        if confirmed:
            self.confirmed_offset = self.end_offset
        else:
            self.unconfirmed_bytes += entry.size
        self._evict()
        self.notify()

    def confirm(self, offset: Offset) -> None:
        """The log has acknowledged every entry up to this offset. A late acknowledgement of an attempt that is void
        changes nothing.
        """
        if offset > self.confirmed_offset:
            confirmed = self.entries_after(self.confirmed_offset, offset - self.confirmed_offset)
            self.unconfirmed_bytes -= sum(entry.size for entry in confirmed)
            self.confirmed_offset = offset
            self._evict()

    def discard_unconfirmed(self) -> None:
        """An attempt has ended: what it did not write is void, and is not written any more."""
        self.confirmed_offset = self.end_offset
        self.unconfirmed_bytes = 0

    def entries_after(self, offset: Offset, limit: int = 1_000) -> list[StreamEntry]:
        """The entries after an offset, which is not before the start."""
        skipped = offset - self.start_offset
        if skipped * 2 < len(self._entries):
            return list(islice(self._entries, skipped, skipped + limit))
        newest = list(islice(reversed(self._entries), self.end_offset - offset))
        return newest[::-1][:limit]

    def _evict(self) -> None:
        while (
            len(self._entries) > _MAX_ENTRIES or self._bytes > _MAX_BYTES
        ) and self.start_offset < self.confirmed_offset:
            oldest = self._entries.popleft()
            self._bytes -= oldest.size
            self.evicted_index = oldest.index

    def notify(self) -> None:
        """Wakes all waiting readers."""
        if not self._waiters:
            return
        waiting, self._waiters = self._waiters, set()
        for future in waiting:
            _resolve(future, changed=True)

    async def wait_for_change(self, seconds: float) -> bool:
        """Waits for the next change; False if there is none in time. The caller must not await anything between
        reading the buffer and this call.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        self._waiters.add(future)
        # in place of `asyncio.timeout`: it runs for every chunk and reader
        timer = loop.call_later(seconds, lambda: _resolve(future, changed=False))
        try:
            return await future
        finally:
            timer.cancel()
            self._waiters.discard(future)


def _resolve(future: asyncio.Future[bool], *, changed: bool) -> None:
    if not future.done():
        future.set_result(changed)
