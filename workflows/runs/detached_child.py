"""Child workflows that outlive the run that starts them."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from sevenfold.contracts.payload import Payload


async def start_detached_child(
    method: Any,
    child_input: Payload,
    *,
    workflow_id: str,
    summary: str,
    memo: Mapping[str, Any],
    task_queue: str | None = None,
) -> None:
    """Starts a child with the run's priority, once per id: an execution that was reset has started it already.

    `memo` is not empty: by it a process that starts sees which codec key the child needs.
    """
    with suppress(WorkflowAlreadyStartedError):
        await workflow.start_child_workflow(
            method,
            child_input,
            id=workflow_id,
            task_queue=task_queue,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            memo=memo,
            static_summary=summary,
            priority=workflow.info().priority,
        )
