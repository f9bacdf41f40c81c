"""The span of an agent call, by the semantic conventions for generative AI (version 0.1.0, in development)."""

import asyncio
import time
from dataclasses import dataclass, field, replace

from temporalio import activity

from sevenfold.activities.identity import current_workflow_id
from sevenfold.adapters.tracing import record, tracer
from sevenfold.contracts.agents.errors import AgentError, ErrorCode
from sevenfold.contracts.agents.interface import Agent, AgentContext, AgentRequest, Reply, Usage
from sevenfold.contracts.agents.questions import InputRequired
from sevenfold.contracts.tracing import Span, SpanKind, TraceContext, run_context

_MAX_CONTENT = 10_000


@dataclass(frozen=True)
class CallSpan:
    """A call that runs: one span, whether the call started inline, was parked or was adopted. The attempt of a worker
    that was killed has none; the next attempt has its own.
    """

    agent: str
    request: AgentRequest
    is_remote: bool
    context: TraceContext
    parent: TraceContext
    started_at: float = field(default_factory=time.time)

    def finish(self, done: "asyncio.Task[Reply]", usage: Usage | None) -> None:
        """Records the call, which has ended."""
        error = None if done.cancelled() else done.exception()
        failed = _read_code(error)
        attributes: dict[str, str | int | float | bool] = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": self.agent,
            "sevenfold.run.id": self.request.run_id,
            "sevenfold.task": self.request.task,
            "sevenfold.attempt": self.request.attempt,
        }
        if usage is not None:
            attributes["gen_ai.usage.input_tokens"] = usage.input_tokens
            attributes["gen_ai.usage.output_tokens"] = usage.output_tokens
        active = tracer()
        if active is not None and active.captures_content:
            attributes["gen_ai.input.messages"] = (self.request.query or "")[:_MAX_CONTENT]
            if not done.cancelled() and error is None:
                attributes["gen_ai.output.messages"] = done.result().response[:_MAX_CONTENT]
        record(
            Span(
                name=f"invoke_agent {self.agent}",
                kind=SpanKind.CLIENT if self.is_remote else SpanKind.INTERNAL,
                context=self.context,
                parent=self.parent,
                started_at=self.started_at,
                ended_at=time.time(),
                attributes=attributes,
                error="cancelled" if done.cancelled() else failed,
            )
        )


def start_call_span(
    name: str, agent: Agent, request: AgentRequest, context: AgentContext
) -> tuple[CallSpan | None, AgentContext]:
    """Returns the span of a call that the current activity starts, None without traces; and the call's context in
    it.
    """
    if tracer() is None:
        return None, context
    parent = run_context(context.traceparent, current_workflow_id(), activity.info().workflow_run_id or "")
    own = parent.child()
    span = CallSpan(name, request, getattr(agent, "is_remote", False), own, parent)
    return span, replace(context, traceparent=str(own))


def _read_code(error: BaseException | None) -> ErrorCode | None:
    """The code of a failure; a call that asks has not failed."""
    if error is None or isinstance(error, InputRequired):
        return None
    return error.code if isinstance(error, AgentError) else ErrorCode.INTERNAL
