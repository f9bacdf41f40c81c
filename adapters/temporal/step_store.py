"""Keeps the steps of a run as signals in its history: durable when the server has acknowledged them, worker or none.

docs/decisions/durable-steps.md has the figures.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from temporalio.client import Client, WorkflowExecutionDescription, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.payloads.stores import PayloadStoreError
from sevenfold.adapters.temporal.encoded import (
    has_pending_task,
    is_task_in_progress,
    memo_names,
    signal_input,
    signal_name,
)
from sevenfold.adapters.temporal.errors import is_transient
from sevenfold.contracts.agents.steps import STEP_SIGNAL, STEPS_MEMO, StepRecord, StepStatus

_RPC_TIMEOUT = timedelta(seconds=5)
_PAUSE_SECONDS = 0.25

# A workflow task that a lost worker has begun is repeated after 10 s; until then the server holds back the signals
# that have arrived since.
_MAX_TASK_SECONDS = 30.0
_TASK_POLL_SECONDS = 0.05


class RunEndedError(Exception):
    """The run has ended, so it takes no more steps."""


class StepsUnreadableError(Exception):
    """A workflow task takes so long that the signals it holds back cannot be read."""


class StepStore:
    """The steps of one run, by its workflow id and Temporal's id of the execution. `earlier`: executions before it
    was retried, of which it takes over what has completed.
    """

    def __init__(self, client: Client, workflow_id: str, workflow_run_id: str, earlier: Sequence[str] = ()) -> None:
        self._client = client
        self._earlier: list[WorkflowHandle[object, object]] = [
            client.get_workflow_handle(workflow_id, run_id=one) for one in earlier
        ]
        self._handle: WorkflowHandle[object, object] = client.get_workflow_handle(workflow_id, run_id=workflow_run_id)

    async def record(self, record: StepRecord) -> None:
        """Returns once the server has the step. Raises RunEndedError, and RPCError for what no retry mends."""
        while True:
            try:
                await self._handle.signal(STEP_SIGNAL, record, rpc_timeout=_RPC_TIMEOUT)
                return
            except PayloadStoreError:  # The store has no space now.
                pass
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    raise RunEndedError from error
                if not is_transient(error):
                    raise
            await asyncio.sleep(_PAUSE_SECONDS)

    async def load(self) -> list[StepRecord]:
        """Returns all steps that the server has acknowledged, in their order. The first of a key counts.

        Raises RPCError and StepsUnreadableError.
        """
        try:
            description = await self._wait_for_task()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:  # The run has been deleted meanwhile.
                return []
            raise
        records = await self._load_earlier()
        if STEPS_MEMO in memo_names(description) or has_pending_task(description):
            records |= {one.key: one for one in await read_steps(self._client, self._handle)}
        return list(records.values())

    async def _load_earlier(self) -> dict[str, StepRecord]:
        """Returns the completed steps of earlier executions, without their order: the code may have been mended."""
        records: dict[str, StepRecord] = {}
        for handle in self._earlier:
            try:
                found = await read_steps(self._client, handle)
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:  # It is older than the retention.
                    continue
                raise
            completed = (one for one in found if one.status is StepStatus.COMPLETED)
            records |= {one.key: one.model_copy(update={"position": None, "mark": None}) for one in completed}
        return records

    async def _wait_for_task(self) -> WorkflowExecutionDescription:
        """Waits until no workflow task is in progress: the server adds signals to the history only between tasks."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _MAX_TASK_SECONDS
        while True:
            description = await self._handle.describe(rpc_timeout=_RPC_TIMEOUT)
            if not is_task_in_progress(description):
                return description
            if loop.time() > until:
                raise StepsUnreadableError
            await asyncio.sleep(_TASK_POLL_SECONDS)


async def read_steps(client: Client, handle: WorkflowHandle[object, object]) -> list[StepRecord]:
    """Returns the steps in the history of a run, page by page. Raises RPCError."""
    records: dict[str, StepRecord] = {}
    async for event in handle.fetch_history_events():
        if signal_name(event) == STEP_SIGNAL:
            (record,) = await signal_input(client, event)[:1].decode(StepRecord)
            records.setdefault(record.key, record)
    return list(records.values())
