"""The span of each attempt of a workflow agent, and the header by which the attempt's workers continue the trace."""

import asyncio
from dataclasses import replace
from typing import Any

from temporalio import worker, workflow
from temporalio.converter import PayloadConverter
from temporalio.exceptions import ChildWorkflowError, FailureError
from temporalio.worker import (
    ExecuteWorkflowInput,
    StartChildWorkflowInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

from sevenfold.adapters.tracing import record
from sevenfold.contracts.identity import parse_attempt
from sevenfold.contracts.runs.run import RunInput
from sevenfold.contracts.tracing import Span, SpanKind, child_context, run_context

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
        try:
            return await super().execute_workflow(input)
        except (FailureError, asyncio.CancelledError):
            # The attempt of a cancelled run is asked to end, and the run does not wait for it.
            self._outbound.record_open("CancelledError")
            raise


class _Outbound(WorkflowOutboundInterceptor):
    """Remembers the attempt that runs: a run has one at a time."""

    run: RunInput | None = None
    _open: Span | None = None

    async def start_child_workflow(self, input: StartChildWorkflowInput) -> workflow.ChildWorkflowHandle[Any, Any]:  # noqa: A002
        attempt = parse_attempt(input.id)
        if self.run is None or attempt is None:
            return await super().start_child_workflow(input)
        span = _open_span(self.run, attempt, input.id)
        payload = PayloadConverter.default.to_payload({"traceparent": str(span.context)})
        handle = await super().start_child_workflow(replace(input, headers={**input.headers, _HEADER: payload}))
        self._open = span
        handle.add_done_callback(self._close)
        return handle

    def record_open(self, error: str | None) -> None:
        """Records the attempt, if one is open."""
        span, self._open = self._open, None
        if span is not None and not workflow.unsafe.is_replaying():
            record(replace(span, ended_at=workflow.now().timestamp(), error=error))

    def _close(self, child: workflow.ChildWorkflowHandle[Any, Any]) -> None:
        # Nothing but its own end: the handle is cancelled, or holds another error, when the run leaves the cache.
        if child.cancelled():
            return
        error = child.exception()
        if error is None or isinstance(error, ChildWorkflowError):
            self.record_open(None if error is None else type(error.cause or error).__name__)


def _open_span(run: RunInput, attempt: int, child_id: str) -> Span:
    info, now = workflow.info(), workflow.now().timestamp()
    parent = run_context(run.request_context.traceparent, info.workflow_id, info.run_id)
    return Span(
        name=f"invoke_agent {run.agent}",
        kind=SpanKind.CLIENT,
        context=child_context(parent, child_id),
        parent=parent,
        started_at=now,
        ended_at=now,
        attributes={
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": run.agent,
            "sevenfold.run.id": run.request.run_id,
            "sevenfold.task": run.request.task,
            "sevenfold.attempt": attempt,
        },
    )
