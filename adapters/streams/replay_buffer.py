"""The tail of a stream in memory: what was told last, for all readers in this process at once."""

import asyncio
from collections import deque
from contextlib import suppress
from itertools import islice

from sevenfold.contracts.streams import EntryKind, StreamEntry

# What is kept beside what the log does not have yet: some seconds of a model's output. A reader who falls further
# behind catches up from the log.
_MAX_ENTRIES = 64
_MAX_BYTES = 64_000


class ReplayBuffer:
    """A bounded run of entries. Every entry has a sequence number of its own here, counted from 1; readers hold the
    number of the last one they had, and nothing is kept per reader.
    """

    def __init__(self) -> None:
        self._entries: deque[StreamEntry] = deque()
        self._bytes = 0
        self._progress = ""
        self._waiters: set[asyncio.Future[None]] = set()
        self.sequence = 0
        self.confirmed_sequence = 0
        self.unconfirmed_bytes = 0
        self.last_index = 0
        # The index after which everything is here.
        self.base_index = 0

    @property
    def before_first(self) -> int:
        """The sequence number before the oldest entry that is still here."""
        return self.sequence - len(self._entries)

    @property
    def unconfirmed(self) -> list[StreamEntry]:
        """What the log does not have yet."""
        return self.entries_since(self.confirmed_sequence)

    @property
    def unconfirmed_count(self) -> int:
        """How many those are."""
        return self.sequence - self.confirmed_sequence

    def restart_after(self, index: int) -> None:
        """Nothing up to this index is here any more: whoever wants it has to ask the log."""
        self._entries.clear()
        self._bytes = self.unconfirmed_bytes = 0
        self.sequence += 1  # so that every reader is behind
        self.confirmed_sequence = self.sequence
        self.base_index = self.last_index = index
        self.notify()

    def append(self, entry: StreamEntry, *, confirmed: bool) -> None:
        """Adds what comes next; what is here already is left as it is."""
        if entry.kind is EntryKind.PROGRESS:
            if entry.index < self.last_index or entry.text == self._progress:
                return
            self._progress = entry.text
        elif entry.index <= self.last_index:
            return
        else:
            self.last_index = entry.index
        self._entries.append(entry)
        self._bytes += entry.size
        self.sequence += 1
        if confirmed:
            self.confirmed_sequence = self.sequence
        else:
            self.unconfirmed_bytes += entry.size
        self._evict()
        self.notify()

    def confirm(self, sequence: int) -> None:
        """The log has all up to this one now. It may be the last word of an attempt that is void."""
        if sequence > self.confirmed_sequence:
            confirmed = self.entries_since(self.confirmed_sequence, sequence - self.confirmed_sequence)
            self.unconfirmed_bytes -= sum(entry.size for entry in confirmed)
            self.confirmed_sequence = sequence
            self._evict()

    def discard_unconfirmed(self) -> None:
        """An attempt has ended; what it could not hand to the log is void, and stays for those who saw it."""
        self.confirmed_sequence = self.sequence
        self.unconfirmed_bytes = 0

    def entries_since(self, sequence: int, limit: int = 1_000) -> list[StreamEntry]:
        """The entries after a sequence number that is not before the oldest."""
        skipped = sequence - self.before_first
        if skipped * 2 < len(self._entries):
            return list(islice(self._entries, skipped, skipped + limit))
        newest = list(islice(reversed(self._entries), self.sequence - sequence))
        return newest[::-1][:limit]

    def _evict(self) -> None:
        while (
            len(self._entries) > _MAX_ENTRIES or self._bytes > _MAX_BYTES
        ) and self.before_first < self.confirmed_sequence:
            oldest = self._entries.popleft()
            self._bytes -= oldest.size
            self.base_index = oldest.index

    def notify(self) -> None:
        """Tells everybody who waits."""
        waiting, self._waiters = self._waiters, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait_for_change(self, seconds: float) -> bool:
        """Waits for the next change; False when there is none in time. Nothing may be awaited between looking at the
        tail and calling this.
        """
        future = asyncio.get_running_loop().create_future()
        self._waiters.add(future)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await future
                    return True
            return False
        finally:
            self._waiters.discard(future)
