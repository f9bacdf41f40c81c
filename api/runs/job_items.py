"""Reads a job's items from its run: ended chunks from the history, running chunks from their heartbeats.

The Temporal server alone answers both, with or without a worker.
"""

from dataclasses import dataclass

from temporalio.client import Client, WorkflowExecutionDescription

from sevenfold.adapters.temporal.encoded import (
    ActivityState,
    EncodedValues,
    activity_result,
    last_heartbeat,
    pending_activities,
)
from sevenfold.contracts.runs.chunks import CHUNK_ID_PREFIX, ChunkOutcome
from sevenfold.contracts.runs.jobs import ItemCounts, ItemResult
from sevenfold.contracts.runs.run import COMPLETED_MEMO, FAILED_MEMO


async def count_items(client: Client, description: WorkflowExecutionDescription) -> ItemCounts:
    """Counts the items that have ended: those of ended chunks by the memo, those of running chunks by heartbeat."""
    memo = await description.memo()
    known = ItemCounts(completed=memo.get(COMPLETED_MEMO, 0), failed=memo.get(FAILED_MEMO, 0))
    for activity in pending_activities(client, description):
        if activity.id.startswith(CHUNK_ID_PREFIX) and activity.heartbeat:
            (heartbeat_counts,) = await activity.heartbeat[:1].decode(ItemCounts)
            known = known.add(heartbeat_counts)
    return known


async def load_results(
    client: Client, description: WorkflowExecutionDescription, first: int, limit: int
) -> dict[int, ItemResult]:
    """Returns the results so far of the items `first` to `first + limit - 1`, by index."""
    chunks = await _load_ended_chunks(client, description.id)
    for activity in pending_activities(client, description):
        if activity.id.startswith(CHUNK_ID_PREFIX) and len(activity.heartbeat) > 1:
            chunks[_offset(activity.id)] = _RunningChunk(activity.heartbeat[1:])
    wanted = range(first, first + limit)
    begin = max((offset for offset in chunks if offset <= first), default=0)
    found: dict[int, ItemResult] = {}
    for offset in sorted(offset for offset in chunks if begin <= offset < wanted.stop):
        results = await _decode_results(chunks[offset])
        found |= {result.index: result for result in results if result.index in wanted}
    return found


def is_paused(client: Client, description: WorkflowExecutionDescription) -> bool:
    """Returns whether an operator has paused the activity of a chunk."""
    return any(activity.state is ActivityState.PAUSED for activity in pending_activities(client, description))


def _offset(activity_id: str) -> int:
    return int(activity_id.removeprefix(CHUNK_ID_PREFIX))


@dataclass(frozen=True)
class _EndedChunk:
    outcome: EncodedValues


@dataclass(frozen=True)
class _RunningChunk:
    segments: EncodedValues


async def _load_ended_chunks(client: Client, workflow_id: str) -> dict[int, _EndedChunk | _RunningChunk]:
    """Returns what each ended chunk returned, by its offset."""
    offset_of_event: dict[int, int] = {}
    chunks: dict[int, _EndedChunk | _RunningChunk] = {}
    async for event in client.get_workflow_handle(workflow_id).fetch_history_events():
        scheduled = event.activity_task_scheduled_event_attributes
        ended = event.activity_task_completed_event_attributes
        timed_out = event.activity_task_timed_out_event_attributes
        if scheduled.activity_id.startswith(CHUNK_ID_PREFIX):
            offset_of_event[event.event_id] = _offset(scheduled.activity_id)
        elif ended.scheduled_event_id in offset_of_event:
            chunks[offset_of_event[ended.scheduled_event_id]] = _EndedChunk(activity_result(client, event))
        elif timed_out.scheduled_event_id in offset_of_event:
            # the job's deadline passed: the failure holds the chunk's last heartbeat
            chunks[offset_of_event[timed_out.scheduled_event_id]] = _RunningChunk(last_heartbeat(client, event)[1:])
    return chunks


async def _decode_results(chunk: _EndedChunk | _RunningChunk) -> list[ItemResult]:
    if isinstance(chunk, _EndedChunk):
        (outcome,) = await chunk.outcome.decode(ChunkOutcome)
        return list(outcome.results)
    segments = await chunk.segments.decode(list[ItemResult])
    return sorted((result for segment in segments for result in segment), key=lambda result: result.index)
