"""Starts the workflows of runs, whoever asks for them: a request, or a broker's message."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.common import Priority, TypedSearchAttributes, WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from sevenfold.adapters.temporal.search_attributes import keyword_attributes
from sevenfold.contracts.identity import build_workflow_id
from sevenfold.contracts.payload import RequestBody
from sevenfold.contracts.runs.hybrid import Route
from sevenfold.contracts.runs.requests import StartOptions
from sevenfold.contracts.runs.run import (
    DEADLINE_MEMO,
    KEY_ATTRIBUTE,
    RUN_ATTRIBUTES,
    WORKFLOW_TYPES,
    Pattern,
    RunInput,
    RunResult,
    batch_task_queue,
    compute_deadline,
    stream_task_queue,
)
from sevenfold.contracts.tracing import trace_memo
from sevenfold.contracts.webhooks.delivery import WEBHOOK_MEMO

_SUMMARY_LENGTH = 160

# The memo with the hash of what a run was started with, for repeated starts.
FINGERPRINT_MEMO = "fingerprint"


class RunQueue(StrEnum):
    """Which worker slots serve a run. Long work and streams have slots of their own, so that neither delays a client
    that waits for an answer.
    """

    INTERACTIVE = "interactive"
    STREAM = "stream"
    BATCH = "batch"

    def task_queue(self, main: str) -> str:
        """Returns the queue's name, by that of the main task queue."""
        if self is RunQueue.BATCH:
            return batch_task_queue(main)
        return stream_task_queue(main) if self is RunQueue.STREAM else main


# The queue of each route of a hybrid run.
QUEUE_OF_ROUTE = {
    Route.SYNCHRONOUS: RunQueue.INTERACTIVE,
    Route.QUEUE: RunQueue.BATCH,
    Route.STREAMING: RunQueue.STREAM,
}


@dataclass(frozen=True)
class NewRun:
    """A run that is about to start. `key` is the client's `Idempotency-Key`, or identifies the message that starts
    it. `key_id` is the id of the client's API key.
    """

    pattern: Pattern
    tenant: str
    run_id: str
    agent: str
    task: str
    options: StartOptions
    key: str | None
    key_id: str | None

    @property
    def workflow_id(self) -> str:
        """The run's id in Temporal."""
        return build_workflow_id(self.tenant, self.run_id)


@dataclass(frozen=True)
class RunTerms:
    """How a run is started: its queue, the lineage of its API key, further memos, and details for the Temporal UI."""

    queue: RunQueue
    key_lineage: str | None = None
    memo: Mapping[str, Any] | None = None
    details: str | None = None


async def start_run(
    client: Client, task_queue: str, run: NewRun, run_input: RunInput, terms: RunTerms
) -> WorkflowHandle[Any, RunResult]:
    """Starts the workflow. Raises WorkflowAlreadyStartedError if there was a run of this id, and RPCError."""
    options, webhook = run.options, run_input.webhook
    handle: WorkflowHandle[Any, RunResult] = await client.start_workflow(
        WORKFLOW_TYPES[run.pattern],
        run_input,
        id=run.workflow_id,
        task_queue=terms.queue.task_queue(task_queue),
        result_type=RunResult,
        id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
        memo={
            FINGERPRINT_MEMO: fingerprint(options),
            "metadata": options.metadata,
            DEADLINE_MEMO: compute_deadline(options.timeout),
            **trace_memo(run_input.request_context.traceparent),
            **({WEBHOOK_MEMO: True} if webhook is not None and webhook.delivers_outcome else {}),
            **(terms.memo or {}),
        },
        search_attributes=_search_attributes(run, terms.key_lineage),
        static_summary=_build_summary(run, run_input.request.query),
        static_details=terms.details,
        priority=Priority(priority_key=options.priority),
        # A worker in this process gets the first task in the response to the start. Not for batch work: accepting
        # a job must not wait until the worker has a slot free of other jobs.
        request_eager_start=terms.queue is not RunQueue.BATCH,
    )
    return handle


def fingerprint(body: RequestBody) -> str:
    """Returns a hash of the body without its secrets. White space and the order of keys do not change it."""
    canonical = json.dumps(body.model_dump(mode="json", exclude_unset=True), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _search_attributes(run: NewRun, key_lineage: str | None) -> TypedSearchAttributes:
    values = dict(zip(RUN_ATTRIBUTES, (run.pattern, run.agent, run.task, run.tenant), strict=True))
    if key_lineage is not None:
        values[KEY_ATTRIBUTE] = key_lineage
    return keyword_attributes(tuple(values), values.values())


def _build_summary(run: NewRun, query: str | None) -> str:
    """Builds the run's line in the Temporal UI: agent, task and the beginning of the query."""
    text = " ".join((query or "").split())
    if len(text) > _SUMMARY_LENGTH:
        text = text[: _SUMMARY_LENGTH - 1] + "…"
    return f"{run.agent} · {run.task}" + (f" · {text}" if text else "")
