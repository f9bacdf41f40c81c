"""What the SDK leaves encoded in Temporal's answers: payloads of events and memos, pending activities, failures.

Only this module reads them (tests/test_encoded_access.py checks that). Read elsewhere, they would be shown encrypted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TypeVar

from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import PendingActivityState, PendingWorkflowTaskState
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionDescription
from temporalio.common import Priority
from temporalio.exceptions import FailureError

from sevenfold.adapters.encryption.payload_codec import find_key_id

T = TypeVar("T")


@dataclass(frozen=True)
class EncodedValues:
    """Values as Temporal keeps them."""

    _client: Client
    _payloads: Sequence[Payload]

    def __len__(self) -> int:
        return len(self._payloads)

    def __getitem__(self, part: slice) -> "EncodedValues":
        return EncodedValues(self._client, self._payloads[part])

    async def decode(self, value_type: type[T]) -> list[T]:
        """Returns the values, all of one type. Raises DecryptionError."""
        values: list[T] = await self._client.data_converter.decode(self._payloads, [value_type] * len(self._payloads))
        return values


def workflow_input(client: Client, event: HistoryEvent) -> EncodedValues:
    """Returns a workflow's input, from its first event."""
    return EncodedValues(client, event.workflow_execution_started_event_attributes.input.payloads)


def signal_input(client: Client, event: HistoryEvent) -> EncodedValues:
    """Returns a signal's input; no values for any other event."""
    return EncodedValues(client, event.workflow_execution_signaled_event_attributes.input.payloads)


def activity_result(client: Client, event: HistoryEvent) -> EncodedValues:
    """Returns what an activity returned, from the event of its completion."""
    return EncodedValues(client, event.activity_task_completed_event_attributes.result.payloads)


def last_heartbeat(client: Client, event: HistoryEvent) -> EncodedValues:
    """Returns the last heartbeat of an activity, from the event of its time-out."""
    failure = event.activity_task_timed_out_event_attributes.failure
    return EncodedValues(client, failure.timeout_failure_info.last_heartbeat_details.payloads)


def encoded_memos(execution: WorkflowExecutionDescription) -> Mapping[str, bytes]:
    """Returns the memos by name, each as comparable bytes for `decode_memo`."""
    fields = execution.raw_description.workflow_execution_info.memo.fields
    return {name: payload.SerializeToString(deterministic=True) for name, payload in fields.items() if payload.data}


async def decode_memo(client: Client, memo: bytes, value_type: type[T]) -> T:
    """Returns the value of one of `encoded_memos`. Raises DecryptionError."""
    (value,) = await EncodedValues(client, [Payload.FromString(memo)]).decode(value_type)
    return value


async def check_memos(client: Client, execution: WorkflowExecution) -> None:
    """Raises DecryptionError if a memo of the execution cannot be decrypted. Reads nothing from the payload store."""
    codec = client.data_converter.payload_codec
    raw = execution.raw_info
    if codec is not None and raw is not None:
        await codec.decode(list(raw.memo.fields.values()))


def memo_key_ids(execution: WorkflowExecution) -> set[str | None]:
    """Returns the ids of the keys that encrypted the execution's memos; None stands for clear ones."""
    return {find_key_id(memo) for memo in execution.raw_info.memo.fields.values()} if execution.raw_info else set()


def memo_names(execution: WorkflowExecutionDescription) -> frozenset[str]:
    """Returns the names of the execution's memos."""
    return frozenset(execution.raw_description.workflow_execution_info.memo.fields)


def find_priority(execution: WorkflowExecutionDescription) -> Priority:
    """Returns the priority with which the execution was started."""
    return Priority(priority_key=execution.raw_description.workflow_execution_info.priority.priority_key or None)


def is_task_in_progress(execution: WorkflowExecutionDescription) -> bool:
    """Whether a worker processes a workflow task now; what arrives meanwhile is not in the history yet."""
    state = execution.raw_description.pending_workflow_task.state
    return state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_STARTED


def signal_name(event: HistoryEvent) -> str:
    """Returns the name of a signal; empty for any other event."""
    return event.workflow_execution_signaled_event_attributes.signal_name


def has_pending_task(execution: WorkflowExecutionDescription) -> bool:
    """Whether something has happened that the workflow has not processed yet."""
    return execution.raw_description.HasField("pending_workflow_task")


class ActivityState(Enum):
    """State of a pending activity, as far as it matters here."""

    WAITING = PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
    RUNNING = PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
    PAUSED = PendingActivityState.PENDING_ACTIVITY_STATE_PAUSED
    OTHER = -1

    @classmethod
    def _missing_(cls, value: object) -> "ActivityState":
        return cls.OTHER


@dataclass(frozen=True)
class PendingActivity:
    """An activity of an open workflow that has not ended. `next_attempt_at` is None if the time is unknown."""

    id: str
    type_name: str
    state: ActivityState
    attempt: int
    next_attempt_at: datetime | None
    heartbeat: EncodedValues
    _last_failure: Failure

    async def load_last_failure(self) -> str | None:
        """Returns the message of its last failure, if there is one. Raises DecryptionError."""
        if not self._last_failure.message:
            return None
        failure = Failure()
        failure.CopyFrom(self._last_failure)  # it is decoded in place
        error = await self.heartbeat._client.data_converter.decode_failure(failure)
        return error.message if isinstance(error, FailureError) else str(error)


def pending_activities(client: Client, execution: WorkflowExecutionDescription) -> list[PendingActivity]:
    """Returns the pending activities of a described workflow."""
    return [_to_pending(client, one) for one in execution.raw_description.pending_activities]


def _to_pending(client: Client, info: PendingActivityInfo) -> PendingActivity:
    due = info.next_attempt_schedule_time if info.HasField("next_attempt_schedule_time") else None
    return PendingActivity(
        id=info.activity_id,
        type_name=info.activity_type.name,
        state=ActivityState(info.state),
        attempt=info.attempt,
        next_attempt_at=due.ToDatetime(UTC) if due else None,
        heartbeat=EncodedValues(client, info.heartbeat_details.payloads),
        _last_failure=info.last_failure,
    )
