"""Starts a run again that has failed or was cancelled: under its own id, with its own input."""

import asyncio
from collections.abc import Mapping
from typing import Any

from temporalio.client import Client, WorkflowExecutionDescription, WorkflowFailureError, WorkflowHandle
from temporalio.common import TypedSearchAttributes, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.temporal.encoded import find_priority
from sevenfold.adapters.temporal.run_outcomes import fetch_input
from sevenfold.adapters.temporal.search_attributes import keyword_attributes
from sevenfold.contracts.agents.questions import QUESTIONS_MEMO
from sevenfold.contracts.agents.steps import STEPS_MEMO
from sevenfold.contracts.events.event_driven import EventInput, ReactionInput
from sevenfold.contracts.payload import Payload
from sevenfold.contracts.runs.analysis import AnalysisInput
from sevenfold.contracts.runs.hybrid import HybridInput
from sevenfold.contracts.runs.jobs import JobInput
from sevenfold.contracts.runs.run import (
    COMPLETED_MEMO,
    DEADLINE_MEMO,
    FAILED_MEMO,
    GENERATION_MEMO,
    PROGRESS_MEMO,
    SEARCH_ATTRIBUTES,
    WORKFLOW_TYPES,
    Pattern,
    RunInput,
    RunResult,
    compute_deadline,
)
from sevenfold.contracts.runs.streams import FOLLOWED_MEMO
from sevenfold.contracts.webhooks.delivery import UNKNOWN_SEQUENCES, updates_workflow_id

_INPUT_TYPES: Mapping[str, type[RunInput]] = {
    **{WORKFLOW_TYPES[pattern]: RunInput for pattern in Pattern if pattern is not Pattern.EVENT},
    WORKFLOW_TYPES[Pattern.QUEUE]: JobInput,
    WORKFLOW_TYPES[Pattern.WEBHOOK]: AnalysisInput,
    WORKFLOW_TYPES[Pattern.HYBRID]: HybridInput,
    WORKFLOW_TYPES[Pattern.REACTION]: ReactionInput,
}

# Whose steps a further generation finds.
_MAX_EARLIER = 20

_UPDATES_SECONDS = 5.0

# What a run has reported while it was open.
_REPORTED = frozenset({PROGRESS_MEMO, COMPLETED_MEMO, FAILED_MEMO, FOLLOWED_MEMO, STEPS_MEMO, QUESTIONS_MEMO})


async def load_input(client: Client, ended: WorkflowExecutionDescription) -> RunInput | EventInput:
    """Returns the input of a run of any pattern."""
    if ended.workflow_type == WORKFLOW_TYPES[Pattern.EVENT]:
        return await fetch_input(client, ended, EventInput)
    return await fetch_input(client, ended, _INPUT_TYPES[ended.workflow_type])


async def restart_run(client: Client, ended: WorkflowExecutionDescription, run_input: RunInput | EventInput) -> bool:
    """Starts the run again as its next generation, with its whole timeout. Returns False if another request has just
    done so, or if the run has completed meanwhile. Raises RPCError.
    """
    memo = {name: value for name, value in (await ended.memo()).items() if name not in _REPORTED}
    started: Payload = run_input
    if isinstance(run_input, RunInput):
        generation = run_input.generation + 1
        earlier = [*run_input.earlier_executions, ended.run_id][-_MAX_EARLIER:]
        sequence = await _find_last_sequence(client, ended.id, run_input)
        changed = {"generation": generation, "earlier_executions": earlier, "webhook_sequence": sequence}
        started = run_input.model_copy(update=changed)
        memo |= {GENERATION_MEMO: generation, DEADLINE_MEMO: compute_deadline(run_input.timeout)}
    try:
        await client.start_workflow(
            ended.workflow_type,
            started,
            id=ended.id,
            task_queue=ended.task_queue,
            result_type=RunResult,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            memo=memo,
            search_attributes=_own_attributes(ended.typed_search_attributes),
            static_summary=await ended.static_summary(),
            static_details=await ended.static_details(),
            priority=find_priority(ended),
        )
    except WorkflowAlreadyStartedError:
        return False
    return True


async def _find_last_sequence(client: Client, workflow_id: str, run: RunInput) -> int:
    """Returns the sequence of the last delivery of the run so far to a stored endpoint."""
    webhook, before = run.webhook, run.webhook_sequence
    if webhook is None or webhook.endpoint_id is None:
        return before
    if not webhook.sends_updates:
        return before + int(webhook.delivers_outcome)
    updates: WorkflowHandle[Any, int] = client.get_workflow_handle(
        updates_workflow_id(workflow_id, run.generation), result_type=int
    )
    try:  # It outlives the run by moments.
        async with asyncio.timeout(_UPDATES_SECONDS):
            return await updates.result()
    except (TimeoutError, WorkflowFailureError):
        return before + UNKNOWN_SEQUENCES
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return before + UNKNOWN_SEQUENCES


def _own_attributes(found: TypedSearchAttributes) -> TypedSearchAttributes:
    """Leaves out those that Temporal sets itself."""
    values: dict[str, Any] = {pair.key.name: pair.value for pair in found if pair.key.name in SEARCH_ATTRIBUTES}
    return keyword_attributes(tuple(values), values.values())
