"""A chunk's results so far, kept in its activity's heartbeat.

The heartbeat's details are the counts, then the results in segments. A segment that has grown over the threshold at
which payloads leave the history is closed: it is stored once under its digest, however often it is told again. So a
heartbeat stays small, and a chunk of large results leaves no trail of half-finished copies behind.
"""

import asyncio
from contextlib import suppress
from datetime import timedelta

from temporalio import activity
from temporalio.client import AsyncActivityCancelledError, AsyncActivityHandle
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.payloads.directory import THRESHOLD_BYTES
from sevenfold.adapters.payloads.stores import PayloadStoreError
from sevenfold.contracts.jobs import ItemCounts, ItemResult

# Without news: well under the heartbeat timeout.
_HEARTBEAT_SECONDS = 1.0

# What heartbeats may cost the server and this process: results of 100 kB are told 40 times a second at most.
_BYTES_PER_SECOND = 4_000_000

_NOT_FOUND = activity.ActivityCancellationDetails(not_found=True)


class ChunkCancelledError(Exception):
    """The server answered a heartbeat by saying that this attempt shall end, and why."""

    def __init__(self, details: activity.ActivityCancellationDetails) -> None:
        super().__init__("the server ends this attempt")
        self.details = details


def load_recorded_results(info: activity.Info) -> list[ItemResult]:
    """What the attempt before this one had recorded."""
    segments = list(info.heartbeat_details)[1:]
    return [ItemResult.model_validate(result) for segment in segments for result in segment]


class ChunkCheckpoint:
    """The results of a chunk. `counts` follows them.

    Without `waits_for_confirmation`, results are told once a second and nobody waits: for a chunk whose items are all
    in flight at once, of which none would keep its slot for another.
    """

    def __init__(
        self, handle: AsyncActivityHandle, results: list[ItemResult], *, waits_for_confirmation: bool
    ) -> None:
        self._handle = handle
        self._waits_for_confirmation = waits_for_confirmation
        self._indexes: set[int] = set()
        self._segments: list[list[ItemResult]] = [[]]
        self._segment_bytes = 0
        self._bytes = 0
        self._unconfirmed: list[asyncio.Future[None]] = []
        self._changed = asyncio.Event()
        self.counts = ItemCounts()
        for result in results:
            self._add(result)

    def sorted_results(self) -> list[ItemResult]:
        """All results by index."""
        results = [result for segment in self._segments for result in segment]
        return sorted(results, key=lambda result: result.index)

    def is_done(self, index: int) -> bool:
        """Whether that item is done."""
        return index in self._indexes

    async def record(self, result: ItemResult) -> None:
        """Returns when the server has the result, if this ledger confirms."""
        self._add(result)
        if not self._waits_for_confirmation:
            return
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unconfirmed.append(confirmed)
        self._changed.set()
        await confirmed

    def _add(self, result: ItemResult) -> None:
        size = len(result.model_dump_json())
        if self._segment_bytes > THRESHOLD_BYTES:
            self._segments.append([])
            self._segment_bytes = 0
        self._segments[-1].append(result)
        self._segment_bytes += size
        self._bytes += size
        self._indexes.add(result.index)
        self.counts = self.counts.add(ItemCounts.from_results([result]))

    async def run_heartbeats(self) -> None:
        """Heartbeats whenever there is news, and once a second; one heartbeat confirms all that waited for it.

        Raises ChunkCancelledError when the chunk shall end.
        """
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _HEARTBEAT_SECONDS)
            self._changed.clear()
            confirmed, self._unconfirmed = self._unconfirmed, []
            await self._heartbeat()
            for one in confirmed:
                if not one.done():
                    one.set_result(None)
            await asyncio.sleep(self._heartbeat_pause())

    def _heartbeat_pause(self) -> float:
        """Seconds after a heartbeat: by what it wrote, and a tenth for what had only to be read again."""
        cost = self._segment_bytes + self._bytes / 10
        return min(_HEARTBEAT_SECONDS, cost / _BYTES_PER_SECOND)

    async def flush(self) -> None:
        """Has the server know all of it: a later attempt goes on from there. Raises ChunkCancelledError."""
        await self._heartbeat()

    async def _heartbeat(self) -> None:
        while True:
            try:
                await self._handle.heartbeat(self.counts, *self._segments, rpc_timeout=timedelta(seconds=5))
                return
            except PayloadStoreError:  # large results that have no room now
                await asyncio.sleep(_HEARTBEAT_SECONDS)
            except AsyncActivityCancelledError as error:
                raise ChunkCancelledError(error.details or _NOT_FOUND) from error
            except RPCError as error:
                if error.status == RPCStatusCode.NOT_FOUND:  # timed out, or its run has ended
                    raise ChunkCancelledError(_NOT_FOUND) from error
                await asyncio.sleep(_HEARTBEAT_SECONDS)
