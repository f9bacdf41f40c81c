"""Starts reactions: each is a run of its own, which the event that called for it does not wait for."""

from contextlib import suppress

from temporalio.client import Client
from temporalio.common import (
    Priority,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError

from adapters.search_attributes import keywords
from contracts.agent import AgentRequest, Origin
from contracts.cloudevents import CloudEvent
from contracts.event_sources import INTERACTION
from contracts.events import CAUSE, ReactionCause, ReactionInput, ReactionOrder, correlation_of, event_queue
from contracts.identity import public_id, tenant_of, workflow_id
from contracts.payload import JsonObject
from contracts.runs import DEADLINE, RUN_ATTRIBUTES, WORKFLOW_TYPES, Pattern, RunResult, deadline_after
from contracts.webhooks import WEBHOOK


async def start_reaction(
    client: Client, task_queue: str, event_workflow: str, event: CloudEvent, order: ReactionOrder, *, published: bool
) -> None:
    """Has an event reacted to, once: a reaction that there is already is left as it is. `published`: its end becomes
    an event, unless it is itself the reaction to such a one.
    """
    tenant, event_id = tenant_of(event_workflow), public_id(event_workflow)
    cause = ReactionCause(subscription=order.subscription, id=event.id, source=event.source, type=event.type)
    with suppress(WorkflowAlreadyStartedError):
        await client.start_workflow(
            WORKFLOW_TYPES[Pattern.REACTION],
            _input(event_id, event, order, published=published and not event.type.startswith(INTERACTION)),
            id=workflow_id(tenant, order.id),
            task_queue=event_queue(task_queue),
            result_type=RunResult,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            memo={
                CAUSE: cause,
                DEADLINE: deadline_after(order.timeout),
                **({WEBHOOK: True} if order.webhook else {}),
            },
            search_attributes=_attributes(tenant, event_id, event, order),
            static_summary=f"{order.agent} · {order.task} · {order.subscription}",
            priority=Priority(priority_key=order.priority, fairness_key=tenant),
            request_eager_start=True,
        )


def _input(event_id: str, event: CloudEvent, order: ReactionOrder, *, published: bool) -> ReactionInput:
    envelope = {name: value for name, value in event.as_json().items() if name not in ("data", "data_base64")}
    request = AgentRequest(
        run_id=order.id, task=order.task, context={"event": envelope}, data=_said(event), params=order.params
    )
    return ReactionInput(
        agent=order.agent,
        request=request,
        timeout=order.timeout,
        target=order.target,
        origin=Origin(traceparent=event.attribute("traceparent") or ""),
        webhook=order.webhook,
        published=published,
        event=event,
        event_id=event_id,
        order=order,
    )


def _said(event: CloudEvent) -> JsonObject:
    """The data as agents get it: an object as it is, all else under a name."""
    if event.data_base64 is not None:
        return {"base64": event.data_base64}
    if isinstance(event.data, dict):
        return event.data
    return {} if event.data is None else {"value": event.data}


def _attributes(tenant: str, event_id: str, event: CloudEvent, order: ReactionOrder) -> TypedSearchAttributes:
    """What it is found by: as a run, by its event, and by what all came of."""
    names = (*RUN_ATTRIBUTES, "SourceRun", "CorrelationId")
    run = (Pattern.REACTION, order.agent, order.task, tenant)
    values = (*run, event_id, correlation_of(event, event_id))
    return keywords(names, values)
