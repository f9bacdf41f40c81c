"""The fairness key and weight of every workflow: those of the tenant that its id names."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from temporalio import client
from temporalio.client import Interceptor, OutboundInterceptor
from temporalio.common import Priority

from sevenfold.contracts.identity import find_tenant

# Returns a tenant's share of busy task queues, compared with the other tenants' weights.
FindWeight = Callable[[str], Awaitable[float]]

_DEFAULT_WEIGHT = 1.0


class FairStarts(Interceptor):
    """Sets them at each start, so that no start can lack them. Temporal passes them on to the workflow's activities,
    children and further runs, and serves the tenants that wait in a task queue in turns.

    Workflows that belong to no tenant, such as circuits and limits, have none.
    """

    def __init__(self) -> None:
        self._find_weight: FindWeight | None = None

    def use_weights(self, find_weight: FindWeight) -> None:
        """Sets where weights come from; until then all are 1. The directory of tenants needs the client that this
        interceptor is a part of, so it comes later.
        """
        self._find_weight = find_weight

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002
        return _Outbound(next, self)

    async def complete(self, priority: Priority, workflow_id: str) -> Priority:
        """Returns the priority with the key and weight of the workflow's tenant."""
        tenant = find_tenant(workflow_id)
        if tenant is None:
            return priority
        weight = _DEFAULT_WEIGHT if self._find_weight is None else await self._find_weight(tenant)
        return replace(priority, fairness_key=tenant, fairness_weight=None if weight == _DEFAULT_WEIGHT else weight)


class _Outbound(OutboundInterceptor):
    def __init__(self, following: OutboundInterceptor, fair_starts: FairStarts) -> None:
        super().__init__(following)
        self._fair_starts = fair_starts

    async def start_workflow(self, input: client.StartWorkflowInput) -> client.WorkflowHandle[Any, Any]:  # noqa: A002
        input.priority = await self._fair_starts.complete(input.priority, input.id)
        return await super().start_workflow(input)

    async def start_update_with_start_workflow(
        self,
        input: client.StartWorkflowUpdateWithStartInput,  # noqa: A002
    ) -> client.WorkflowUpdateHandle[Any]:
        start = input.start_workflow_input
        start.priority = await self._fair_starts.complete(start.priority, start.id)
        return await super().start_update_with_start_workflow(input)
