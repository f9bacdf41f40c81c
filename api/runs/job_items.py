"""Reads a job's items from its run: ended chunks from the history, running chunks from their heartbeats.

The Temporal server alone answers both, with or without a worker.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowHandle

from sevenfold.contracts.chunks import CHUNK_ID_PREFIX, ChunkOutcome
from sevenfold.contracts.jobs import ItemCounts, ItemResult


async def count_items(client: Client, description: WorkflowExecutionDescription) -> ItemCounts:
    """Counts the items that have ended: those of ended chunks by the memo, those of running chunks by heartbeat."""
    memo = await description.memo()
    known = ItemCounts(completed=memo.get("completed", 0), failed=memo.get("failed", 0))
    for activity in description.raw_description.pending_activities:
        payloads = activity.heartbeat_details.payloads
        if activity.activity_id.startswith(CHUNK_ID_PREFIX) and payloads:
            (heartbeat_counts,) = await client.data_converter.decode(payloads[:1], [ItemCounts])
            known = known.add(heartbeat_counts)
    return known


async def load_results(
    client: Client, description: WorkflowExecutionDescription, first: int, limit: int
) -> dict[int, ItemResult]:
    """Returns the results so far of the items `first` to `first + limit - 1`, by index."""
    chunks = await _load_ended_chunks(client.get_workflow_handle(description.id))
    for activity in description.raw_description.pending_activities:
        payloads = activity.heartbeat_details.payloads
        if activity.activity_id.startswith(CHUNK_ID_PREFIX) and len(payloads) > 1:
            chunks[_offset(activity.activity_id)] = _RunningChunk(payloads[1:])
    wanted = range(first, first + limit)
    begin = max((offset for offset in chunks if offset <= first), default=0)
    found: dict[int, ItemResult] = {}
    for offset in sorted(offset for offset in chunks if begin <= offset < wanted.stop):
        results = await _decode_results(client, chunks[offset])
        found |= {result.index: result for result in results if result.index in wanted}
    return found


def is_paused(description: WorkflowExecutionDescription) -> bool:
    """Returns whether an operator has paused the activity of a chunk."""
    return any(
        activity.state == PendingActivityState.PENDING_ACTIVITY_STATE_PAUSED
        for activity in description.raw_description.pending_activities
    )


def _offset(activity_id: str) -> int:
    return int(activity_id.removeprefix(CHUNK_ID_PREFIX))


@dataclass(frozen=True)
class _EndedChunk:
    outcome: Payload


@dataclass(frozen=True)
class _RunningChunk:
    segments: Sequence[Payload]


async def _load_ended_chunks(handle: WorkflowHandle[Any, Any]) -> dict[int, _EndedChunk | _RunningChunk]:
    """Returns what each ended chunk returned, by its offset."""
    offset_of_event: dict[int, int] = {}
    chunks: dict[int, _EndedChunk | _RunningChunk] = {}
    async for event in handle.fetch_history_events():
        scheduled = event.activity_task_scheduled_event_attributes
        ended = event.activity_task_completed_event_attributes
        timed_out = event.activity_task_timed_out_event_attributes
        if scheduled.activity_id.startswith(CHUNK_ID_PREFIX):
            offset_of_event[event.event_id] = _offset(scheduled.activity_id)
        elif ended.scheduled_event_id in offset_of_event:
            chunks[offset_of_event[ended.scheduled_event_id]] = _EndedChunk(ended.result.payloads[0])
        elif timed_out.scheduled_event_id in offset_of_event:
            # the job's deadline passed: the failure holds the chunk's last heartbeat
            details = timed_out.failure.timeout_failure_info.last_heartbeat_details.payloads
            chunks[offset_of_event[timed_out.scheduled_event_id]] = _RunningChunk(details[1:])
    return chunks


async def _decode_results(client: Client, chunk: _EndedChunk | _RunningChunk) -> list[ItemResult]:
    converter = client.data_converter
    if isinstance(chunk, _EndedChunk):
        (outcome,) = await converter.decode([chunk.outcome], [ChunkOutcome])
        return list(outcome.results)
    segments = await converter.decode(chunk.segments, [list[ItemResult]] * len(chunk.segments))
    return sorted((result for segment in segments for result in segment), key=lambda result: result.index)
