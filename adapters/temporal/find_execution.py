"""Finds an execution by its workflow id."""

from temporalio.client import Client, WorkflowExecutionDescription
from temporalio.service import RPCError, RPCStatusCode


async def find_execution(client: Client, workflow_id: str) -> WorkflowExecutionDescription | None:
    """Describes the latest execution of a workflow id; None if there is none."""
    try:
        return await client.get_workflow_handle(workflow_id).describe()
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return None
