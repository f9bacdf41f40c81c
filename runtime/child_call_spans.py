"""The span of each attempt of a workflow agent, and the header by which the attempt's workers continue the trace."""

from dataclasses import replace
from functools import partial
from typing import Any

from temporalio import worker, workflow
from temporalio.converter import PayloadConverter
from temporalio.exceptions import ChildWorkflowError
from temporalio.worker import (
    ExecuteWorkflowInput,
    StartChildWorkflowInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

from sevenfold.adapters.tracing import record
from sevenfold.contracts.identity import parse_attempt
from sevenfold.contracts.runs import RunInput
from sevenfold.contracts.tracing import Span, SpanKind, TraceContext, child_context, run_context

# Of Temporal's own OpenTelemetry interceptors, in every SDK.
_HEADER = "_tracer-data"


class ChildCallSpans(worker.Interceptor):
    """Observes the child workflows that are attempts of an agent. A replay records nothing, and a span that is
    recorded twice has the same id.
    """

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:  # noqa: A002
        return _Inbound


class _Inbound(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        self._outbound = _Outbound(outbound)
        super().init(self._outbound)

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: A002  (the SDK's name)
        if input.args and isinstance(input.args[0], RunInput):
            self._outbound.run = input.args[0]
        return await super().execute_workflow(input)


class _Outbound(WorkflowOutboundInterceptor):
    run: RunInput | None = None

    async def start_child_workflow(self, input: StartChildWorkflowInput) -> workflow.ChildWorkflowHandle[Any, Any]:  # noqa: A002
        attempt = parse_attempt(input.id)
        if self.run is None or attempt is None:
            return await super().start_child_workflow(input)
        info = workflow.info()
        parent = run_context(self.run.request_context.traceparent, info.workflow_id, info.run_id)
        context = child_context(parent, input.id)
        payload = PayloadConverter.default.to_payload({"traceparent": str(context)})
        started_at = workflow.now().timestamp()
        handle = await super().start_child_workflow(replace(input, headers={**input.headers, _HEADER: payload}))
        handle.add_done_callback(partial(_record, self.run, attempt, context, parent, started_at))
        return handle


def _record(
    run: RunInput,
    attempt: int,
    context: TraceContext,
    parent: TraceContext,
    started_at: float,
    child: workflow.ChildWorkflowHandle[Any, Any],
) -> None:
    # The handle itself is cancelled only when the run is evicted from the cache.
    if child.cancelled() or workflow.unsafe.is_replaying():
        return
    error = child.exception()
    if error is not None and not isinstance(error, ChildWorkflowError):
        return
    record(
        Span(
            name=f"invoke_agent {run.agent}",
            kind=SpanKind.CLIENT,
            context=context,
            parent=parent,
            started_at=started_at,
            ended_at=workflow.now().timestamp(),
            attributes={
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.agent.name": run.agent,
                "sevenfold.run.id": run.request.run_id,
                "sevenfold.task": run.request.task,
                "sevenfold.attempt": attempt,
            },
            error=None if error is None else type(error.cause or error).__name__,
        )
    )
