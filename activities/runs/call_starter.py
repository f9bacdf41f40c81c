"""Starts the agent calls of a worker process."""

import asyncio
import contextvars
from collections.abc import Sequence
from datetime import datetime
from functools import partial

import structlog
from temporalio import activity

from sevenfold.activities.identity import current_tenant, current_workflow_id
from sevenfold.activities.runs.call_heartbeats import prior_usage
from sevenfold.activities.runs.call_meter import CallMeter
from sevenfold.activities.runs.call_span import start_call_span
from sevenfold.activities.runs.durable_call import DurableTerms, RunDurableCall
from sevenfold.activities.runs.durable_values import current_step_store
from sevenfold.activities.runs.inline_calls import CallsInFlight
from sevenfold.activities.runs.progress_reporter import ProgressReporter
from sevenfold.activities.runs.running_call import CallInFlight
from sevenfold.adapters.access.step_addresses import StepAddresses
from sevenfold.adapters.agents.admission.admission import Permit
from sevenfold.adapters.metrics.runs import observe_first_chunk
from sevenfold.adapters.streams.hub import StreamHubs
from sevenfold.adapters.streams.publisher import StreamAttempt, StreamPublisher
from sevenfold.contracts.agents.interface import Agent
from sevenfold.contracts.agents.steps import StepRecord, find_mark
from sevenfold.contracts.runs.calls import AgentCall, CallHeartbeat
from sevenfold.contracts.runs.streams import GENERATION_STEP


class CallStarter:
    """Starts calls in the context in which it was built, not in that of an activity: the call outlives the activity
    that starts it, and would keep that activity's context in memory.
    """

    def __init__(self, hubs: StreamHubs, meter: CallMeter, calls: CallsInFlight, steps: StepAddresses | None) -> None:
        self._steps = steps
        self._hubs = hubs
        self._meter = meter
        self._calls = calls
        self._context = contextvars.copy_context()

    def start(
        self,
        call: AgentCall,
        agent: Agent,
        permit: Permit,
        attempt: int,
        *,
        awaits_adoption: bool,
        is_retry: bool = False,
        last: CallHeartbeat | None = None,
        records: Sequence[StepRecord] | None = None,
    ) -> CallInFlight:
        """Starts an attempt for the current activity. The permit is released when the call ends. `records`: the run's
        steps, if they were read.
        """
        request = call.request
        if request.attempt != attempt:
            request = request.model_copy(update={"attempt": attempt})
        stream = StreamAttempt(
            attempt,
            is_retry=is_retry or attempt > 1 or request.turn > 1 or call.generation > 1,
            first_index=(call.generation - 1) * GENERATION_STEP,
            is_awaited=call.is_streamed,
            mark=find_mark(records) or call.mark,
        )
        context = call.request_context.agent_context(call.deadline, current_tenant())
        span, context = start_call_span(call.agent, agent, request, context)
        prior = prior_usage(call, last or CallHeartbeat())
        spending = self._meter.spending(current_tenant(), call.key_id, call.agent, call.limits, lambda: prior)
        client, workflow_id = activity.client(), current_workflow_id()
        store = current_step_store(call.earlier_executions)
        terms = DurableTerms(
            request.run_id,
            attempt,
            request.turn,
            call.answers,
            build_steps_url=partial(self._build_steps_url, current_tenant(), request.run_id, call.deadline),
        )
        durable = partial(RunDurableCall, store, terms, awaits_adoption=awaits_adoption, records=records)
        agent_name, deadline, progress_id = call.agent, call.deadline, call.progress_workflow_id

        def start() -> CallInFlight:
            publisher = StreamPublisher(self._hubs, workflow_id, stream, deadline, awaits_adoption=awaits_adoption)
            reporter = ProgressReporter(client, progress_id) if progress_id is not None else None
            report = reporter.report if reporter else None
            running = self._calls.start(
                agent, request, context, publisher, report, spending, span, name=agent_name, durable=durable
            )
            running.done.add_done_callback(permit.on_done)
            running.done.add_done_callback(partial(_observe_first_text, agent_name, running))
            if reporter is not None:
                running.done.add_done_callback(reporter.on_done)
            return running

        return self._logging_context().run(start)

    def _logging_context(self) -> contextvars.Context:
        """Returns a context of its own that has what log lines of the current activity have."""
        context = self._context.copy()
        context.run(structlog.contextvars.bind_contextvars, **structlog.contextvars.get_contextvars())
        return context

    def _build_steps_url(self, tenant: str, run_id: str, deadline: datetime) -> str | None:
        """Returns where an agent behind HTTP records its steps. Signed only when one is called."""
        return self._steps.build(tenant, run_id, deadline) if self._steps is not None else None


def _observe_first_text(agent: str, running: CallInFlight, _: asyncio.Future[object]) -> None:
    if running.first_text_seconds is not None:
        observe_first_chunk(agent, running.first_text_seconds)
