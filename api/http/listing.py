"""Reads executions from Temporal: one by its id, or a page of those that a visibility query finds."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import Depends
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionDescription
from temporalio.service import RPCError

from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.adapters.temporal.errors import is_transient
from sevenfold.adapters.temporal.find_execution import find_execution
from sevenfold.api.dependencies import component
from sevenfold.api.http.pagination import Cursors, invalid_cursor


def tenant_condition(tenant: str | None) -> list[str]:
    """Returns the condition of a visibility query for one tenant's items; none for all tenants' (None)."""
    return [] if tenant is None else [f"Tenant = '{tenant}'"]


@dataclass(frozen=True)
class Pager:
    """Lists executions page by page."""

    client: Client
    cursors: Cursors

    async def list_page(
        self, query: str, limit: int, cursor: str | None
    ) -> tuple[list[WorkflowExecution], str | None]:
        """Returns the page after `cursor`, and the next page's cursor. Raises 422 if the cursor belongs to another
        list.
        """
        token = self.cursors.read(cursor, query)
        page = self.client.list_workflows(query, page_size=limit, next_page_token=token)
        try:
            await page.fetch_next_page()
        except RPCError as error:
            if token is None or is_transient(error):
                raise
            raise invalid_cursor() from error  # the checksum is right, but Temporal does not know the token
        return list(page.current_page or []), self.cursors.write(page.next_page_token, query)


PagerDep = Annotated[Pager, Depends(component("pager"))]


async def filter_latest(
    client: Client, executions: Iterable[WorkflowExecution]
) -> list[WorkflowExecutionDescription]:
    """Describes those that are the latest of their workflow id. Visibility lags, and lists one id once for each
    execution.
    """
    listed = list(executions)
    latest = await gather_bounded(partial(find_execution, client), (execution.id for execution in listed))
    return [now for now, then in zip(latest, listed, strict=True) if now is not None and now.run_id == then.run_id]
