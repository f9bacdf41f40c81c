"""What a reaction publishes: events that say where they come from."""

import hashlib
from datetime import datetime
from typing import Any

from adapters.events.matching import matches
from contracts.agent import Reply
from contracts.cloudevents import CloudEvent, EventRefusedError, event_from_json
from contracts.event_sources import source_of
from contracts.events import ReactionInput, correlation_of, hops_of
from contracts.runs import RunError
from contracts.verdicts import Verdict
from workflows.failures import failure_of


def derived_events(reaction: ReactionInput, reply: Reply, now: datetime) -> list[CloudEvent]:
    """The events that a reply means, in order. Their ids are made of the reaction's: published twice, they are the
    same events.

    Raises the failure of an agent whose `events` are none.
    """
    order = reaction.order
    events = []
    for number, output in enumerate(_outputs(order.publishes, reply)):
        said = {**_envelope(reaction, number, now), **output}
        try:
            event = event_from_json(said)
        except EventRefusedError as error:
            detail = f"The agent's events[{number}] cannot be published: {error}."
            raise failure_of(RunError(verdict=Verdict.AGENT_REJECTED, detail=detail)) from None
        if order.publish_when is None or matches(order.publish_when, event, f"publishWhen of {order.subscription}"):
            events.append(event)
    return events


def _outputs(publishes: str | None, reply: Reply) -> list[dict[str, Any]]:
    told = (reply.data or {}).get("events")
    by_default = {} if publishes is None else {"type": publishes}
    if isinstance(told, list) and all(isinstance(one, dict) for one in told):
        known = ("type", "data", "subject")
        return [
            {**by_default, **{k: v for k, v in one.items() if k in known}} for one in told if isinstance(one, dict)
        ]
    if publishes is None:
        return []
    whole = {"response": reply.response, "confidence": reply.confidence}
    return [{**by_default, "data": reply.data if reply.data is not None else whole}]


def _envelope(reaction: ReactionInput, number: int, now: datetime) -> dict[str, Any]:
    cause = reaction.event
    identity = f"{reaction.order.id}-{number}"
    envelope = {
        "specversion": "1.0",
        "id": identity,
        "source": source_of(reaction.order.subscription),
        "time": now.isoformat(),
        "datacontenttype": "application/json",
        "subject": cause.subject,
        "correlationid": correlation_of(cause, reaction.event_id),
        "causationid": cause.id,
        "hops": hops_of(cause) + 1,
        "traceparent": traceparent_after(cause, identity),
        "replayof": cause.attribute("replayof"),
    }
    return {name: value for name, value in envelope.items() if value is not None}


def traceparent_after(cause: CloudEvent, identity: str) -> str:
    """W3C trace context: the cause's trace goes on with a span of its own; without one a trace begins."""
    digest = hashlib.sha256(identity.encode()).hexdigest()
    parts = (cause.attribute("traceparent") or "").split("-")
    if len(parts) >= 4 and len(parts[1]) == 32:
        return f"{parts[0]}-{parts[1]}-{digest[:16]}-{parts[3]}"
    return f"00-{hashlib.sha256(cause.id.encode()).hexdigest()[:32]}-{digest[:16]}-01"
