"""The executions of one tenant in Temporal: found by visibility, stopped and deleted."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from temporalio.client import Client, WorkflowExecution, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.adapters.temporal.errors import is_transient
from sevenfold.adapters.temporal.run_deletion import delete_execution
from sevenfold.contracts.identity import build_workflow_id, is_public_id, parse_public_id
from sevenfold.contracts.operations.erasure import TENANT_WORKFLOW_TYPES

# Bounds the load on a cluster that others use too.
_MAX_PER_SECOND = 100
_PAGE = 100

_REASON = "The tenant's data are being erased."
_ATTEMPT = re.compile(r"(/codec)?/\d+")

ExecutionAction = Callable[[WorkflowExecution], Awaitable[None]]


class TenantExecutions:
    """Finds the executions of our workflow types whose ids begin with the tenant, and the child workflows that are
    its agents. Visibility lags by a moment.

    The search attribute `Tenant` would miss registries, semaphores, stream segments and endpoints.
    """

    def __init__(self, client: Client, tenant: str) -> None:
        self._client = client
        self._tenant = tenant
        prefix = build_workflow_id(tenant, "")
        own_types = ", ".join(f"'{name}'" for name in TENANT_WORKFLOW_TYPES)
        self._own = f"WorkflowId STARTS_WITH '{prefix}' AND WorkflowType IN ({own_types})"
        self._foreign = f"RootWorkflowId STARTS_WITH '{prefix}' AND WorkflowType NOT IN ({own_types})"
        self._ended_calls = f"{self._foreign} AND WorkflowId STARTS_WITH '{prefix}' AND ExecutionStatus != 'Running'"

    async def count(self) -> int:
        """Returns the number of the tenant's executions, with the workflows of agents that have ended. Raises
        RPCError.
        """
        own = (await self._client.count_workflows(self._own)).count
        if not (await self._client.count_workflows(self._ended_calls)).count:
            return own
        return own + len([one async for one in self._list_ended_calls()])

    async def is_any_open(self) -> bool:
        """Whether any execution is open, including the workflows of agents. Raises RPCError."""
        if (await self._client.count_workflows(_open(self._own))).count:
            return True
        return any([True async for one in self._list(_open(self._foreign)) if _is_agent_call(one)])

    async def request_cancellations(self, asked: set[str]) -> None:
        """Requests the cancellation of what is open, and of nothing twice: adds the run ids to `asked`.

        The workflows of agents run in other people's workers: their parents, our runs, cancel them.
        """

        async def cancel(execution: WorkflowExecution) -> None:
            if execution.run_id not in asked:
                await self._handle(execution).cancel()
                asked.add(execution.run_id)

        await self._for_each(self._list(_open(self._own)), _unless_gone(cancel))

    async def terminate_open(self) -> int:
        """Terminates what is open, but no workflow of an agent; returns the number. Raises RPCError."""
        count = 0

        async def terminate(execution: WorkflowExecution) -> None:
            nonlocal count
            await self._handle(execution).terminate(reason=_REASON)
            count += 1

        await self._for_each(self._list(_open(self._own)), _unless_gone(terminate))
        return count

    async def delete_all(self) -> str | None:
        """Requests the deletion of all executions, and of the workflows of agents that have ended. Temporal
        terminates those that are open, and deletes each within a minute. Repeating it is harmless.

        Returns the reason if Temporal refuses to delete some. Raises RPCError if it is unavailable.
        """
        refusal: str | None = None

        async def delete(execution: WorkflowExecution) -> None:
            nonlocal refusal
            try:
                await delete_execution(self._client, execution)
            except RPCError as error:
                if is_transient(error) or error.status is RPCStatusCode.NOT_FOUND:
                    raise
                refusal = f"{error.status.name}: {error.message}"

        await self._for_each(self._list(self._own), _unless_gone(delete))
        await self._for_each(self._list_ended_calls(), _unless_gone(delete))
        return refusal

    async def count_agent_workflows(self) -> tuple[int, int]:
        """Returns the number of child workflows that agents are, and of other workflows that those started."""
        found = [_is_agent_call(one) async for one in self._list(self._foreign)]
        return sum(found), len(found) - sum(found)

    async def _list_ended_calls(self) -> AsyncIterator[WorkflowExecution]:
        async for one in self._list(self._ended_calls):
            if _is_agent_call(one):
                yield one

    def _list(self, query: str) -> AsyncIterator[WorkflowExecution]:
        return self._client.list_workflows(query, page_size=_PAGE)

    def _handle(self, execution: WorkflowExecution) -> WorkflowHandle[Any, Any]:
        return self._client.get_workflow_handle(execution.id, run_id=execution.run_id)

    async def _for_each(self, executions: AsyncIterator[WorkflowExecution], action: ExecutionAction) -> None:
        batch: list[WorkflowExecution] = []
        async for execution in executions:
            batch.append(execution)
            if len(batch) == _PAGE:
                await _act(batch, action)
                batch = []
        await _act(batch, action)


async def _act(batch: list[WorkflowExecution], action: ExecutionAction) -> None:
    """Acts on a batch, at most `_MAX_PER_SECOND`."""
    started_at = time.monotonic()
    await gather_bounded(action, batch)
    if len(batch) == _PAGE:
        await asyncio.sleep(max(0.0, len(batch) / _MAX_PER_SECOND - (time.monotonic() - started_at)))


def _unless_gone(action: ExecutionAction) -> ExecutionAction:
    """Ignores executions that have ended or been deleted since they were listed."""

    async def act(execution: WorkflowExecution) -> None:
        try:
            await action(execution)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise

    return act


def _open(query: str) -> str:
    return f"{query} AND ExecutionStatus = 'Running'"


def _is_agent_call(execution: WorkflowExecution) -> bool:
    """Whether it is the child workflow of a run, whose id `child_workflow_id` makes."""
    parent = execution.parent_id
    if parent is None or not is_public_id(parse_public_id(parent)):
        return False
    return execution.id.startswith(parent) and _ATTEMPT.fullmatch(execution.id[len(parent) :]) is not None
