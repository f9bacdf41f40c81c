"""Runs of several tenants, started as the API starts them."""

import asyncio
from typing import Any

from temporalio.client import Client, WorkflowHandle

from sevenfold.adapters.temporal.search_attributes import keyword_attributes
from sevenfold.contracts.agents.interface import AgentRequest
from sevenfold.contracts.identity import build_workflow_id, new_id
from sevenfold.contracts.runs.run import (
    ID_PREFIXES,
    RUN_ATTRIBUTES,
    WORKFLOW_TYPES,
    Pattern,
    RunInput,
    RunResult,
    batch_task_queue,
)

_BATCH = (Pattern.QUEUE, Pattern.WEBHOOK)


async def start_run(
    client: Client,
    tenant: str,
    pattern: Pattern = Pattern.SYNCHRONOUS,
    *,
    agent: str = "echo",
    task: str = "query",
    timeout: float = 60,
    task_queue: str = "sevenfold",
    params: dict[str, Any] | None = None,
    **request: Any,
) -> WorkflowHandle[Any, RunResult]:
    """Starts a run of the tenant by its agent."""
    run_id = new_id(ID_PREFIXES[pattern])
    run = RunInput(
        agent=agent,
        request=AgentRequest(run_id=run_id, task=task, params=params or {}, **request),
        timeout=timeout,
    )
    handle: WorkflowHandle[Any, RunResult] = await client.start_workflow(
        WORKFLOW_TYPES[pattern],
        run,
        id=build_workflow_id(tenant, run_id),
        task_queue=batch_task_queue(task_queue) if pattern in _BATCH else task_queue,
        result_type=RunResult,
        search_attributes=keyword_attributes(RUN_ATTRIBUTES, (pattern, agent, task, tenant)),
        request_eager_start=pattern not in _BATCH,
    )
    return handle


async def call_agent(client: Client, tenant: str, agent: str, **options: Any) -> BaseException | None:
    """Starts a run and awaits its end; returns its failure if it failed."""
    handle = await start_run(client, tenant, agent=agent, **options)
    (outcome,) = await asyncio.gather(handle.result(), return_exceptions=True)
    return outcome if isinstance(outcome, BaseException) else None
