"""The log of a stream in its own run: written as Temporal's Workflow Streams do it, read from the history.

Each item is a batch, a list of entries: as items of their own they took half of an open stream's memory. The stock
client of `temporalio.contrib.workflow_streams` can follow such a run too. That client asks the workflow; our readers
long-poll the history. It needs no worker, works the same after the run has ended, adds nothing to the history, and is
faster (docs/decisions/stream-history-reads.md).

The server takes 10,000 signals per workflow. A long stream therefore continues in *segments*, workflows of their own
named `<workflow id>/stream/<n>`, long before that. The last batch of a segment is a marker; where the server refused
the marker, readers look for the next segment. (A stock client reads the first segment, the run.)
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import (
    GetWorkflowExecutionHistoryRequest,
    GetWorkflowExecutionHistoryReverseRequest,
)
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.contrib.workflow_streams import PublishInput
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.encryption.key_ring import DecryptionError
from sevenfold.adapters.payloads.stores import PayloadStoreError
from sevenfold.adapters.streams.temporal.batches import is_marker, unpack_batch
from sevenfold.adapters.streams.temporal.writer import TemporalStreamWriter
from sevenfold.adapters.temporal.encoded import signal_input
from sevenfold.contracts import workflow_types
from sevenfold.contracts.runs.streams import (
    PUBLISH_SIGNAL,
    STREAM_TOPIC,
    Index,
    StreamEntry,
    StreamLogError,
    StreamPage,
    StreamSegmentInput,
    segment_workflow_id,
)

_PAGE_EVENTS = 200

# Longer than the server lets a long-poll wait.
_LONG_POLL_TIMEOUT = timedelta(seconds=70)

# A batch, and its workflow task.
_EVENTS_PER_WRITE = 4

# In a segment with at least this many batches, a reader that waits looks for the next segment.
_PROBE_AFTER_BATCHES = 8
_PROBE_SECONDS = 2.0

# A write costs an event for the batch, three for its workflow task, and some 10 ms of processor. Readers in the
# process itself have the replay buffer. Readers elsewhere want every batch early, as far as the history allows.
_LOCAL_WRITE_INTERVAL_SECONDS = 1.0
_MIN_WRITE_INTERVAL_SECONDS = 0.1
_INTERVAL_PER_AGE = 1 / 200
_MAX_WRITES_PER_SECOND = 25


@dataclass(frozen=True, slots=True)
class _LogPosition:
    """Where to continue: the segment, the server's page token in it, and how many batches of it were read."""

    segment: int = 1
    token: bytes = b""
    batches: int = 0


class TemporalStreamLog:
    """The log that needs nothing installed. Segments run on `task_queue`."""

    def __init__(self, client: Client, task_queue: str) -> None:
        self._client = client
        self._task_queue = task_queue

    def writer(self, workflow_id: str, deadline: datetime, *, is_retry: bool) -> TemporalStreamWriter:
        """A writer for one attempt of the run; see `sevenfold.contracts.runs.streams.StreamLog`."""
        return TemporalStreamWriter(self, workflow_id, deadline, is_retry=is_retry)

    async def check_reachable(self) -> None:
        """It is in Temporal."""

    def write_interval(self, *, has_local_readers: bool, age_seconds: float, writer_count: int) -> float:
        """Seconds between two writes; see `sevenfold.contracts.runs.streams.StreamLog`."""
        interval = _LOCAL_WRITE_INTERVAL_SECONDS if has_local_readers else age_seconds * _INTERVAL_PER_AGE
        return max(
            _MIN_WRITE_INTERVAL_SECONDS,
            min(interval, _LOCAL_WRITE_INTERVAL_SECONDS),
            writer_count / _MAX_WRITES_PER_SECOND,
        )

    async def read(self, workflow_id: str, position: _LogPosition | None, *, wait: bool) -> StreamPage:
        """The history's next events, over all segments.

        While the run is open it waits, with and without `wait`: the history has no end yet.
        """
        current = position or _LogPosition()
        try:
            # a segment may outlive the run, and then has nothing more
            waits = wait or current.segment == 1
            reading = asyncio.ensure_future(self._read_page(workflow_id, current, wait=waits))
            try:
                while current.batches >= _PROBE_AFTER_BATCHES:
                    if (await asyncio.wait({reading}, timeout=_PROBE_SECONDS))[0]:
                        break
                    if await self.exists(segment_workflow_id(workflow_id, current.segment + 1)):
                        # it is started only once all before it is acknowledged, and that was read
                        return StreamPage(entries=[], position=_LogPosition(current.segment + 1), has_more=True)
                return await reading
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
        except (RPCError, PayloadStoreError, DecryptionError) as error:
            raise StreamLogError(str(error)) from error

    async def read_now(self, workflow_id: str, position: _LogPosition | None) -> StreamPage:
        """What the history has at the moment, over all segments."""
        try:
            return await self._read_page(workflow_id, position or _LogPosition(), wait=False)
        except (RPCError, PayloadStoreError, DecryptionError) as error:
            raise StreamLogError(str(error)) from error

    async def _read_page(self, workflow_id: str, current: _LogPosition, *, wait: bool) -> StreamPage:
        request = GetWorkflowExecutionHistoryRequest(
            namespace=self._client.namespace,
            execution=WorkflowExecution(workflow_id=segment_workflow_id(workflow_id, current.segment)),
            maximum_page_size=_PAGE_EVENTS,
            next_page_token=current.token,
            wait_new_event=wait,
        )
        answer = await self._client.workflow_service.get_workflow_execution_history(
            request, retry=True, timeout=_LONG_POLL_TIMEOUT
        )
        batches = [batch for event in answer.history.events for batch in await self._decode_batches(event)]
        lines = [line for batch in batches for line in batch]
        entries = [StreamEntry(line) for line in lines if not is_marker(line)]
        if len(entries) < len(lines):
            return StreamPage(entries=entries, position=_LogPosition(current.segment + 1), has_more=True)
        if answer.next_page_token:
            following = _LogPosition(current.segment, answer.next_page_token, current.batches + len(batches))
            return StreamPage(entries=entries, position=following, has_more=True)
        if await self.exists(segment_workflow_id(workflow_id, current.segment + 1)):
            return StreamPage(entries=entries, position=_LogPosition(current.segment + 1), has_more=True)
        return StreamPage(entries=entries, position=current, has_more=False)

    async def remove_tenant(self, tenant: str) -> int:
        """Nothing is kept outside of the histories."""
        return 0

    async def last_index(self, workflow_id: str) -> Index:
        """Looked up from the last segment's end backwards. A run that was deleted has none."""
        try:
            for segment in range(await self.last_segment(workflow_id), 0, -1):
                index = await self._last_index_in(segment_workflow_id(workflow_id, segment))
                if index:
                    return index
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise StreamLogError(str(error)) from error
        except (PayloadStoreError, DecryptionError) as error:
            raise StreamLogError(str(error)) from error
        return 0

    async def last_segment(self, workflow_id: str) -> int:
        """The number of the stream's last segment. Raises RPCError."""
        segment = 1
        while await self.exists(segment_workflow_id(workflow_id, segment + 1)):
            segment += 1
        return segment

    async def exists(self, workflow_id: str) -> bool:
        """Whether there is such a workflow, running or ended. Raises RPCError."""
        try:
            await self._client.get_workflow_handle(workflow_id).describe()
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            return False
        return True

    async def segment_size(self, workflow_id: str) -> tuple[int, int]:
        """Roughly how many writes and bytes a segment holds. Raises RPCError."""
        description = await self._client.get_workflow_handle(workflow_id).describe()
        info = description.raw_description.workflow_execution_info
        return int(info.history_length) // _EVENTS_PER_WRITE, int(info.history_size_bytes)

    async def _last_index_in(self, segment: str) -> Index:
        request = GetWorkflowExecutionHistoryReverseRequest(
            namespace=self._client.namespace,
            execution=WorkflowExecution(workflow_id=segment),
            maximum_page_size=_PAGE_EVENTS,
        )
        service = self._client.workflow_service
        while True:
            answer = await service.get_workflow_execution_history_reverse(request, retry=True)
            batches = [batch for event in answer.history.events for batch in await self._decode_batches(event)]
            indexes = [StreamEntry(line).index for batch in batches for line in batch if not is_marker(line)]
            if indexes:  # a late writer may have written last, but not the highest index
                return max(indexes)
            if not answer.next_page_token:
                return 0
            request.next_page_token = answer.next_page_token

    async def _decode_batches(self, event: HistoryEvent) -> list[list[bytes]]:
        """The batches that an event holds, as lines."""
        signal = event.workflow_execution_signaled_event_attributes
        if signal.signal_name != PUBLISH_SIGNAL:
            return []
        try:
            (published,) = await signal_input(self._client, event).decode(PublishInput)
        except ApplicationError:  # its payload is gone: readers find the gap
            return []
        return [unpack_batch(item.data) for item in published.items if item.topic == STREAM_TOPIC]

    async def cancel_segment(self, segment: str) -> None:
        """Ends a segment that takes no more signals. Raises RPCError."""
        await self._client.get_workflow_handle(segment).cancel()

    async def signal_segment(self, segment: str, name: str, *arguments: Any) -> None:
        """Signals an existing segment. Raises RPCError."""
        await self._client.get_workflow_handle(segment).signal(name, args=arguments)

    async def start_segment(self, segment: str, expires_at: datetime, published: PublishInput) -> bool:
        """Starts a segment with its first batch, or signals it there; False where it has ended. Raises RPCError."""
        try:
            await self._client.start_workflow(
                workflow_types.STREAM_SEGMENT,
                StreamSegmentInput(expires_at=expires_at),
                id=segment,
                task_queue=self._task_queue,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                start_signal=PUBLISH_SIGNAL,
                start_signal_args=[published],
                static_summary="a stream continues here",
            )
        except WorkflowAlreadyStartedError:
            return False
        return True
