"""The results of a chunk so far, in the heartbeat details of its activity.

The details are the counts with the steps of unfinished items, then the results in segments. A segment that exceeds
the threshold of large payloads is closed: its digest stays the same in later heartbeats, so it is stored once. So a
heartbeat stays small, and a chunk with large results stores no partial copies.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta

from temporalio import activity
from temporalio.client import AsyncActivityCancelledError, AsyncActivityHandle
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.payloads.directory import THRESHOLD_BYTES
from sevenfold.adapters.payloads.stores import PayloadStoreError
from sevenfold.contracts.agents.steps import StepRecord
from sevenfold.contracts.agents.usage import NO_USAGE, UsageTotals
from sevenfold.contracts.runs.jobs import ItemCounts, ItemResult

# Heartbeat interval without new results, well below the heartbeat timeout.
_HEARTBEAT_SECONDS = 1.0

# Bounds the cost of heartbeats: results of 100 kB are sent at most 40 times a second.
_BYTES_PER_SECOND = 4_000_000

# The SDK cancels an activity of which it sees no heartbeat for 5 s more than the heartbeat timeout, and it does not
# see those that the handle sends. So it sends one too, now and then, which is at the server after this pause: nothing
# is confirmed meanwhile, since an older heartbeat could replace a newer one.
_SDK_HEARTBEAT_SECONDS, _SDK_SENDING_SECONDS = 6.0, 0.1

_NOT_FOUND = activity.ActivityCancellationDetails(not_found=True)


class ChunkState(ItemCounts):
    """The first of the heartbeat's details: the counts, and the steps of items without a result, by their indexes."""

    steps: dict[int, list[StepRecord]] = {}


class ChunkCancelledError(Exception):
    """The server's response to a heartbeat cancels this attempt; `details` has the reason."""

    def __init__(self, details: activity.ActivityCancellationDetails) -> None:
        super().__init__("the server cancelled this attempt")
        self.details = details


def load_recorded_results(info: activity.Info) -> list[ItemResult]:
    """Returns the results that the previous attempt recorded."""
    segments = list(info.heartbeat_details)[1:]
    return [ItemResult.model_validate(result) for segment in segments for result in segment]


def load_recorded_usage(info: activity.Info) -> UsageTotals:
    """Returns what the previous attempt had used when it recorded its results."""
    return ItemCounts.model_validate(info.heartbeat_details[0]).usage if info.heartbeat_details else NO_USAGE


def load_recorded_steps(info: activity.Info) -> dict[int, list[StepRecord]]:
    """Returns the steps of items that the previous attempt had not finished."""
    return ChunkState.model_validate(info.heartbeat_details[0]).steps if info.heartbeat_details else {}


class ItemSteps:
    """The steps of one item, in the checkpoint of its chunk."""

    def __init__(self, checkpoint: "ChunkCheckpoint", index: int) -> None:
        self._checkpoint = checkpoint
        self._index = index

    async def load(self) -> list[StepRecord]:
        """Returns the steps so far."""
        return self._checkpoint.steps_of(self._index)

    async def record(self, record: StepRecord) -> None:
        """Returns when the server has the step."""
        await self._checkpoint.record_step(self._index, record)


class ChunkCheckpoint:
    """Results and `counts` of one chunk.

    Without `waits_for_confirmation` results are sent once a second and `record` does not wait. That is for a chunk
    whose items are all in flight at once, so that no item waits for a slot.
    """

    def __init__(
        self,
        handle: AsyncActivityHandle,
        results: list[ItemResult],
        usage: UsageTotals,
        steps: Mapping[int, list[StepRecord]],
        *,
        waits_for_confirmation: bool,
    ) -> None:
        self._handle = handle
        self._waits_for_confirmation = waits_for_confirmation
        self._indexes: set[int] = set()
        self._segments: list[list[ItemResult]] = [[]]
        self._segment_bytes = 0
        self._bytes = 0
        self._unconfirmed: list[asyncio.Future[None]] = []
        self._changed = asyncio.Event()
        self._steps = dict(steps)
        self._sdk_heartbeat_at = time.monotonic()
        self.counts = ItemCounts(usage=usage)
        for result in results:
            self._add(result)

    def sorted_results(self) -> list[ItemResult]:
        """Returns all results by index."""
        results = [result for segment in self._segments for result in segment]
        return sorted(results, key=lambda result: result.index)

    def is_done(self, index: int) -> bool:
        """Whether the item has a result."""
        return index in self._indexes

    def add_usage(self, usage: UsageTotals) -> None:
        """Counts one call of the agent."""
        self.counts = self.counts.add(ItemCounts(usage=usage))

    async def record(self, result: ItemResult) -> None:
        """Adds a result. Returns when the server has confirmed it, if `waits_for_confirmation`."""
        self._add(result)
        if self._waits_for_confirmation:
            await self._confirm()

    def steps_of(self, index: int) -> list[StepRecord]:
        """Returns the steps of an item without a result."""
        return self._steps.get(index, [])

    async def record_step(self, index: int, record: StepRecord) -> None:
        """Adds a step of an item. Returns when the server has confirmed it."""
        self._steps.setdefault(index, []).append(record)
        await self._confirm()

    async def _confirm(self) -> None:
        """Returns when the server has confirmed what there is."""
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
        self._steps.pop(result.index, None)
        self.counts = self.counts.add(ItemCounts.from_results([result]))

    async def run_heartbeats(self) -> None:
        """Sends a heartbeat for new results, and at least once a second. One heartbeat confirms all waiting results.

        Raises ChunkCancelledError if the server cancels the attempt.
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
            await self._heartbeat_by_sdk()
            await asyncio.sleep(self._heartbeat_pause())

    async def _heartbeat_by_sdk(self) -> None:
        now = time.monotonic()
        if now - self._sdk_heartbeat_at >= _SDK_HEARTBEAT_SECONDS:
            self._sdk_heartbeat_at = now
            activity.heartbeat(self._state, *self._segments)
            await asyncio.sleep(_SDK_SENDING_SECONDS)

    def _heartbeat_pause(self) -> float:
        """Returns the seconds to wait after a heartbeat: in proportion to the bytes written, plus a tenth of the
        bytes that were only read again.
        """
        cost = self._segment_bytes + self._bytes / 10
        return min(_HEARTBEAT_SECONDS, cost / _BYTES_PER_SECOND)

    async def flush(self) -> None:
        """Sends all results to the server, so that a later attempt continues from them. Raises
        ChunkCancelledError.
        """
        await self._heartbeat()

    @property
    def _state(self) -> "ChunkState":
        return ChunkState(**dict(self.counts), steps=self._steps)

    async def _heartbeat(self) -> None:
        while True:
            try:
                await self._handle.heartbeat(self._state, *self._segments, rpc_timeout=timedelta(seconds=5))
                return
            except PayloadStoreError:  # The store has no space for large results now.
                await asyncio.sleep(_HEARTBEAT_SECONDS)
            except AsyncActivityCancelledError as error:
                raise ChunkCancelledError(error.details or _NOT_FOUND) from error
            except RPCError as error:
                if error.status == RPCStatusCode.NOT_FOUND:  # The activity timed out, or its run has ended.
                    raise ChunkCancelledError(_NOT_FOUND) from error
                await asyncio.sleep(_HEARTBEAT_SECONDS)
