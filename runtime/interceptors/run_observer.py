"""Counts each run that ends, and writes its line to the log."""

import asyncio
import threading
from datetime import timedelta
from typing import Any

import structlog
from cachetools import LRUCache
from pydantic import ValidationError
from temporalio import activity, worker, workflow
from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    ExecuteWorkflowInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)

from sevenfold.adapters.metrics.runs import count_end
from sevenfold.adapters.tracing import record
from sevenfold.contracts.agents.errors import ErrorCode
from sevenfold.contracts.agents.interface import RequestContext
from sevenfold.contracts.identity import parse_public_id, parse_tenant
from sevenfold.contracts.runs.run import WORKFLOW_TYPES, Pattern, RunInput, RunStatus
from sevenfold.contracts.tracing import Span, SpanKind, TraceContext, run_context

log = structlog.get_logger(__name__)

_PATTERNS = {name: pattern for pattern, name in WORKFLOW_TYPES.items() if pattern is not Pattern.EVENT}


# The ends of the latest runs: Temporal may refuse a completion, for instance because a signal came meanwhile; then
# the last workflow task runs again. Tasks run in several threads.
_ended: LRUCache[tuple[str, str], bool] = LRUCache(2_000)
_lock = threading.Lock()


def _is_first(run: tuple[str, str]) -> bool:
    with _lock:
        is_first = run not in _ended
        _ended[run] = True
        return is_first


class RunObserver(worker.Interceptor):
    """Observes the workflows of runs. Neither a replay nor a repeated end in the same process counts. What Temporal
    ends itself (a termination, a time-out) passes through no worker, so it has neither count nor line.
    """

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        return _LoggedActivity(next)

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:  # noqa: A002
        return _Inbound


class _LoggedActivity(ActivityInboundInterceptor):
    """What an activity logs has the run's id and trace."""

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002  (the SDK's name)
        context = getattr(input.args[0], "request_context", None) if input.args else None
        if isinstance(context, RequestContext):
            run_id = parse_public_id(activity.info().workflow_id or "")
            info = activity.info()
            trace = run_context(context.traceparent, info.workflow_id or "", info.workflow_run_id or "")
            structlog.contextvars.bind_contextvars(
                run_id=run_id,
                trace_id=trace.trace_id,
                tenant=parse_tenant(info.workflow_id or ""),
                agent=getattr(input.args[0], "agent", ""),
                request_id=context.request_id,
            )
        return await super().execute_activity(input)


class _Inbound(WorkflowInboundInterceptor):
    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: A002  (the SDK's name)
        pattern = _PATTERNS.get(workflow.info().workflow_type)
        run = input.args[0] if input.args else None
        if pattern is None or not isinstance(run, RunInput):
            return await super().execute_workflow(input)
        try:
            result = await super().execute_workflow(input)
        except (FailureError, ValidationError, asyncio.CancelledError) as error:  # Others fail the task, not the run.
            _observe_end(pattern, run, error)
            raise
        _observe_end(pattern, run, None)
        return result


def _observe_end(pattern: Pattern, run: RunInput, error: BaseException | None) -> None:
    info = workflow.info()
    if workflow.unsafe.is_replaying() or not _is_first((info.workflow_id, info.run_id)):
        return
    outcome, code = RunStatus.COMPLETED, ""
    if error is not None:
        outcome = RunStatus.CANCELLED if is_cancelled_exception(error) else RunStatus.FAILED
        code = _find_code(error) if outcome is RunStatus.FAILED else ""
    tenant = parse_tenant(info.workflow_id)
    seconds = max(timedelta(), workflow.now() - info.workflow_start_time).total_seconds()
    count_end(pattern, run.agent, run.request.task, tenant, outcome, code, seconds)
    trace = run_context(run.request_context.traceparent, info.workflow_id, info.run_id)
    record(
        Span(
            name=f"run {pattern}",
            kind=SpanKind.INTERNAL,
            context=trace,
            parent=TraceContext.parse(run.request_context.traceparent),
            started_at=info.workflow_start_time.timestamp(),
            ended_at=workflow.now().timestamp(),
            attributes={
                "sevenfold.run.id": run.request.run_id,
                "sevenfold.pattern": str(pattern),
                "sevenfold.agent": run.agent,
                "sevenfold.task": run.request.task,
                "sevenfold.outcome": str(outcome),
            },
            error=(code or None) if outcome is RunStatus.FAILED else None,
        )
    )
    log.info(
        "run ended",
        run_id=parse_public_id(info.workflow_id),
        pattern=pattern,
        agent=run.agent,
        tenant=tenant,
        outcome=outcome,
        **({"error": code} if code else {}),
        seconds=round(seconds, 3),
        request_id=run.request_context.request_id,
        trace_id=trace.trace_id,
    )


def _find_code(error: BaseException) -> ErrorCode:
    if isinstance(error, ApplicationError) and error.type is not None and error.type in list(ErrorCode):
        return ErrorCode(error.type)
    return ErrorCode.INTERNAL
