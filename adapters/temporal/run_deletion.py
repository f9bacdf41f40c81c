"""Deletes workflow executions from Temporal's store, before their retention ends."""

from temporalio.api.common.v1 import WorkflowExecution as ExecutionRef
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client, WorkflowExecution
from temporalio.service import RPCError, RPCStatusCode


async def delete_execution(client: Client, execution: WorkflowExecution) -> None:
    """Deletes one execution; Temporal terminates an open one first. Raises RPCError, with NOT_FOUND if it is gone."""
    ref = ExecutionRef(workflow_id=execution.id, run_id=execution.run_id)
    await client.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(namespace=client.namespace, workflow_execution=ref), retry=True
    )


async def delete_run(client: Client, ended: WorkflowExecution) -> None:
    """Deletes a run that has ended, with its generations before. Its deliveries and children keep their retention."""
    await _delete_unless_gone(client, ended)
    async for one in client.list_workflows(f"WorkflowId = '{ended.id}'"):
        if one.run_id != ended.run_id and one.close_time is not None:
            await _delete_unless_gone(client, one)


async def _delete_unless_gone(client: Client, execution: WorkflowExecution) -> None:
    try:
        await delete_execution(client, execution)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
