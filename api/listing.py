"""What Temporal knows of executions: of one by its id, and page by page of those that a query finds."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from temporalio.client import WorkflowExecution, WorkflowExecutionDescription
from temporalio.service import RPCError, RPCStatusCode

from api.cursors import read_cursor, write_cursor
from api.gateway import Gateway

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 8


async def find_execution(gateway: Gateway, workflow: str) -> WorkflowExecutionDescription | None:
    """The latest execution under a workflow id as it is now, if there is one."""
    try:
        return await gateway.client.get_workflow_handle(workflow).describe()
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return None


async def list_page(
    gateway: Gateway, query: str, limit: int, cursor: str | None
) -> tuple[list[WorkflowExecution], str | None]:
    """The page after a cursor, and the next one's cursor. Raises the problem of another list's cursor."""
    page = gateway.client.list_workflows(query, page_size=limit, next_page_token=read_cursor(cursor, query))
    await page.fetch_next_page()
    return list(page.current_page or []), write_cursor(page.next_page_token, query)


async def few_at_once(work: Callable[[T], Awaitable[R]], items: Iterable[T]) -> list[R]:
    """The outcomes in the order of the items; Temporal is asked for eight of them at a time."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(item: T) -> R:
        async with places:
            return await work(item)

    return list(await asyncio.gather(*map(one, items)))
