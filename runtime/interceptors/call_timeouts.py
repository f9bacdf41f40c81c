"""Time-outs for the Temporal client's calls that have none by default."""

from datetime import timedelta
from typing import Any, Protocol, TypeVar

from temporalio import client
from temporalio.client import Interceptor, OutboundInterceptor

# A server that does not answer (stopped, or behind a dead network) must not block its callers.
CALL_TIMEOUT = timedelta(seconds=10)


class _HasTimeout(Protocol):
    rpc_timeout: timedelta | None


T = TypeVar("T", bound=_HasTimeout)


class CallTimeouts(Interceptor):
    """Starts, signals, cancellations, descriptions and lists fail after `CALL_TIMEOUT` with a transient RPCError.

    Long polls (results, updates) keep the time-outs of their callers.
    """

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002
        return _Outbound(next)


class _Outbound(OutboundInterceptor):
    async def start_workflow(self, input: client.StartWorkflowInput) -> client.WorkflowHandle[Any, Any]:  # noqa: A002
        return await super().start_workflow(_limited(input))

    async def describe_workflow(
        self,
        input: client.DescribeWorkflowInput,  # noqa: A002
    ) -> client.WorkflowExecutionDescription:
        return await super().describe_workflow(_limited(input))

    async def signal_workflow(self, input: client.SignalWorkflowInput) -> None:  # noqa: A002
        await super().signal_workflow(_limited(input))

    async def cancel_workflow(self, input: client.CancelWorkflowInput) -> None:  # noqa: A002
        await super().cancel_workflow(_limited(input))

    async def count_workflows(self, input: client.CountWorkflowsInput) -> client.WorkflowExecutionCount:  # noqa: A002
        return await super().count_workflows(_limited(input))

    def list_workflows(self, input: client.ListWorkflowsInput) -> client.WorkflowExecutionAsyncIterator:  # noqa: A002
        return super().list_workflows(_limited(input))

    def fetch_workflow_history_events(
        self,
        input: client.FetchWorkflowHistoryEventsInput,  # noqa: A002
    ) -> client.WorkflowHistoryEventAsyncIterator:
        return super().fetch_workflow_history_events(input if input.wait_new_event else _limited(input))


def _limited(call: T) -> T:
    call.rpc_timeout = call.rpc_timeout or CALL_TIMEOUT
    return call
