"""Writes one attempt's batches into a run's stream in Temporal: as signals, segment after segment."""

import secrets
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Protocol

from temporalio.contrib.workflow_streams import PublishEntry, PublishInput
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.payloads.stores import PayloadStoreError
from sevenfold.adapters.streams.temporal.batches import encode_batch, pack_batch
from sevenfold.contracts.runs.streams import (
    FINISH_SIGNAL,
    PUBLISH_SIGNAL,
    SEGMENT_MARKER,
    STREAM_TOPIC,
    StreamClosedError,
    StreamEntry,
    StreamLogError,
    segment_workflow_id,
)

# A segment's writes and bytes: the server's limits are 10,000 signals and 50 MB.
_MAX_WRITES = 4_000
_MAX_BYTES = 20_000_000

# How the server refuses a signal beyond its limit; nothing will ever change that.
_SIGNAL_LIMIT_MESSAGE = "exceeded workflow execution limit for signal"

# A segment outlives its run's deadline by this, for the last batches of an attempt that has just ended.
_DEADLINE_MARGIN = timedelta(minutes=10)


class Segments(Protocol):
    """What the writer needs of the log: `sevenfold.adapters.streams.temporal.log.TemporalStreamLog`. All raise
    RPCError.
    """

    async def last_segment(self, workflow_id: str) -> int: ...

    async def segment_size(self, workflow_id: str) -> tuple[int, int]: ...

    async def signal_segment(self, segment: str, name: str, *arguments: Any) -> None: ...

    async def cancel_segment(self, segment: str) -> None: ...

    async def start_segment(self, segment: str, expires_at: datetime, published: PublishInput) -> bool: ...


class TemporalStreamWriter:
    """Writes batches as signals. A batch that is sent again has the same sequence number (of Workflow Streams'
    protocol), by which the workflow drops the second. The caller retries; nothing is dropped here.
    """

    def __init__(self, log: Segments, workflow_id: str, deadline: datetime, *, is_retry: bool) -> None:
        self._log = log
        self._workflow_id = workflow_id
        self._expires_at = deadline + _DEADLINE_MARGIN
        # None until the last segment of the attempts before is looked up
        self._segment: int | None = None if is_retry else 1
        self._segment_exists = True  # the current segment has been started
        self._writes = 0
        self._bytes = 0
        self._publisher_id = secrets.token_hex(8)
        self._sequence = 0
        self._pending: Sequence[StreamEntry] = ()  # the batch that has no acknowledgement yet

    async def append(self, entries: Sequence[StreamEntry]) -> None:
        """See `sevenfold.contracts.runs.streams.StreamWriter`."""
        if entries is not self._pending:
            self._sequence += 1
            self._pending = entries
        try:
            if self._segment is None:
                await self._find_segment()
            if self._writes >= _MAX_WRITES or self._bytes >= _MAX_BYTES:
                await self._roll_over()
            await self._publish(encode_batch(entries))
            self._pending = ()
        except (RPCError, PayloadStoreError) as error:
            raise StreamLogError(str(error)) from error

    async def finish(self) -> None:
        """Ends the segments beside the run; one that is missed here ends by its own timer."""
        for number in range(2, (self._segment or 1) + 1):
            segment = segment_workflow_id(self._workflow_id, number)
            with suppress(RPCError):
                try:
                    await self._log.signal_segment(segment, FINISH_SIGNAL)
                except RPCError as error:
                    if _SIGNAL_LIMIT_MESSAGE not in error.message:
                        raise
                    await self._log.cancel_segment(segment)

    async def _find_segment(self) -> None:
        segment = await self._log.last_segment(self._workflow_id)
        self._writes, self._bytes = await self._log.segment_size(segment_workflow_id(self._workflow_id, segment))
        self._segment = segment

    async def _publish(self, data: bytes) -> None:
        entry = PublishEntry(topic=STREAM_TOPIC, data=pack_batch(data))
        published = PublishInput(items=[entry], publisher_id=self._publisher_id, sequence=self._sequence)
        while not await self._send_to_segment(published):
            self._next_segment()
        self._writes += 1
        self._bytes += len(data)

    async def _send_to_segment(self, published: PublishInput) -> bool:
        """False if the current segment takes no more signals. Raises StreamClosedError after the run's end."""
        assert self._segment is not None, "it was looked up"  # noqa: S101
        segment = segment_workflow_id(self._workflow_id, self._segment)
        try:
            if not self._segment_exists:
                self._segment_exists = await self._log.start_segment(segment, self._expires_at, published)
                return self._segment_exists
            await self._log.signal_segment(segment, PUBLISH_SIGNAL, published)
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                if self._segment == 1:
                    raise StreamClosedError("The run has ended.") from error
                return False
            if _SIGNAL_LIMIT_MESSAGE in error.message:
                return False
            raise
        return True

    async def _roll_over(self) -> None:
        """Writes a marker and continues in the next segment."""
        assert self._segment is not None, "it was looked up"  # noqa: S101
        marker = b'[{"%b":%d}]' % (SEGMENT_MARKER.encode(), self._segment + 1)
        entry = PublishEntry(topic=STREAM_TOPIC, data=pack_batch(marker))
        # a publisher of its own: the batch that waits has its sequence number already
        published = PublishInput(items=[entry], publisher_id=f"{self._publisher_id}-end-{self._segment}", sequence=1)
        await self._send_to_segment(published)
        self._next_segment()

    def _next_segment(self) -> None:
        assert self._segment is not None, "it was looked up"  # noqa: S101
        self._segment += 1
        self._segment_exists = False
        self._writes = self._bytes = 0
