"""Starts reactions: each is its own run, for whose end the event does not wait."""

from contextlib import suppress
from datetime import UTC, datetime

from temporalio.client import Client
from temporalio.common import (
    Priority,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError

from sevenfold.adapters.metrics.events import observe_reaction_lag
from sevenfold.adapters.metrics.runs import count_start
from sevenfold.adapters.temporal.search_attributes import keyword_attributes
from sevenfold.contracts.agents.interface import AgentRequest, RequestContext
from sevenfold.contracts.events.cloudevents import CloudEvent, find_time
from sevenfold.contracts.events.event_driven import (
    CAUSE_MEMO,
    ReactionCause,
    ReactionInput,
    ReactionSpec,
    event_task_queue,
    find_correlation_id,
)
from sevenfold.contracts.events.sources import INTERACTION_TYPE_PREFIX
from sevenfold.contracts.identity import build_workflow_id, parse_public_id, parse_tenant
from sevenfold.contracts.payload import JsonObject
from sevenfold.contracts.runs.run import (
    DEADLINE_MEMO,
    RUN_ATTRIBUTES,
    WORKFLOW_TYPES,
    Pattern,
    RunResult,
    compute_deadline,
)
from sevenfold.contracts.tracing import trace_memo
from sevenfold.contracts.webhooks.delivery import WEBHOOK_MEMO


async def start_reaction(
    client: Client,
    task_queue: str,
    event_workflow_id: str,
    event: CloudEvent,
    spec: ReactionSpec,
    *,
    traceparent: str,
    publish_interaction: bool,
) -> None:
    """Starts a reaction; an existing one stays unchanged. `traceparent`: what it continues.

    With `publish_interaction` its end is published as an event, unless the event is an interaction itself.
    """
    tenant, event_id = parse_tenant(event_workflow_id), parse_public_id(event_workflow_id)
    cause = ReactionCause(subscription=spec.subscription, id=event.id, source=event.source, type=event.type)
    with suppress(WorkflowAlreadyStartedError):
        await client.start_workflow(
            WORKFLOW_TYPES[Pattern.REACTION],
            _build_input(
                event_id,
                event,
                spec,
                traceparent=traceparent,
                publish_interaction=publish_interaction and not event.type.startswith(INTERACTION_TYPE_PREFIX),
            ),
            id=build_workflow_id(tenant, spec.id),
            task_queue=event_task_queue(task_queue),
            result_type=RunResult,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            memo={
                CAUSE_MEMO: cause,
                DEADLINE_MEMO: compute_deadline(spec.timeout),
                **trace_memo(traceparent),
                **({WEBHOOK_MEMO: True} if spec.webhook is not None and spec.webhook.delivers_outcome else {}),
            },
            search_attributes=_search_attributes(tenant, event_id, event, spec),
            static_summary=f"{spec.agent} · {spec.task} · {spec.subscription}",
            priority=Priority(priority_key=spec.priority),
            request_eager_start=True,
        )
        count_start(Pattern.REACTION, spec.agent, spec.task, tenant)
        if (occurred_at := find_time(event)) is not None:
            observe_reaction_lag((datetime.now(UTC) - occurred_at).total_seconds())


def _build_input(
    event_id: str, event: CloudEvent, spec: ReactionSpec, *, traceparent: str, publish_interaction: bool
) -> ReactionInput:
    envelope = {name: value for name, value in event.to_json().items() if name not in ("data", "data_base64")}
    request = AgentRequest(
        run_id=spec.id, task=spec.task, context={"event": envelope}, data=_agent_data(event), params=spec.params
    )
    return ReactionInput(
        agent=spec.agent,
        request=request,
        timeout=spec.timeout,
        target=spec.target,
        request_context=RequestContext(traceparent=traceparent),
        webhook=spec.webhook,
        publish_interaction=publish_interaction,
        event_id=event_id,
        subscription=spec.subscription,
        publishes=spec.publishes,
        publish_when=spec.publish_when,
        max_attempts=spec.max_attempts,
        semaphores=spec.semaphores,
    )


def _agent_data(event: CloudEvent) -> JsonObject:
    """Returns the event's data for the agent: an object unchanged, anything else under a key."""
    if event.data_base64 is not None:
        return {"base64": event.data_base64}
    if isinstance(event.data, dict):
        return event.data
    return {} if event.data is None else {"value": event.data}


def _search_attributes(tenant: str, event_id: str, event: CloudEvent, spec: ReactionSpec) -> TypedSearchAttributes:
    """Returns the search attributes of a reaction: as a run, by its event, and by its correlation."""
    names = (*RUN_ATTRIBUTES, "SourceRun", "CorrelationId")
    run = (Pattern.REACTION, spec.agent, spec.task, tenant)
    values = (*run, event_id, find_correlation_id(event, event_id))
    return keyword_attributes(names, values)
