"""What Temporal knows of executions: of one by its id, and page by page of those that a query finds."""

from collections.abc import Iterable
from functools import partial

from temporalio.client import WorkflowExecution, WorkflowExecutionDescription
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.adapters.temporal.errors import is_transient
from sevenfold.api.dependencies import Gateway
from sevenfold.api.http.pagination import Cursors, invalid_cursor


async def find_execution(gateway: Gateway, workflow_id: str) -> WorkflowExecutionDescription | None:
    """The latest execution under a workflow id as it is now, if there is one."""
    try:
        return await gateway.client.get_workflow_handle(workflow_id).describe()
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return None


async def list_page(
    gateway: Gateway, query: str, limit: int, cursor: str | None
) -> tuple[list[WorkflowExecution], str | None]:
    """The page after a cursor, and the next one's cursor. Raises the problem of another list's cursor."""
    cursors = Cursors(gateway.webhooks.sealer)
    token = cursors.read(cursor, query)
    page = gateway.client.list_workflows(query, page_size=limit, next_page_token=token)
    try:
        await page.fetch_next_page()
    except RPCError as error:
        if token is None or is_transient(error):
            raise
        raise invalid_cursor() from error  # a token that only looks like one of ours
    return list(page.current_page or []), cursors.write(page.next_page_token, query)


async def filter_latest(
    gateway: Gateway, executions: Iterable[WorkflowExecution]
) -> list[WorkflowExecutionDescription]:
    """Those that are the latest under their ids, as they are now: visibility lags, and lists a workflow once for each
    time that it began anew.
    """
    listed = list(executions)
    latest = await gather_bounded(partial(find_execution, gateway), (execution.id for execution in listed))
    return [now for now, then in zip(latest, listed, strict=True) if now is not None and now.run_id == then.run_id]
