"""What a reaction publishes: events that say where they come from."""

import hashlib
from datetime import datetime
from typing import Any

from sevenfold.adapters.events.matching import matches
from sevenfold.contracts.agent import Reply
from sevenfold.contracts.cloudevents import CloudEvent, InvalidEventError, event_from_json
from sevenfold.contracts.event_sources import subscription_source
from sevenfold.contracts.events import ReactionInput, count_hops, find_correlation_id
from sevenfold.contracts.runs import RunError
from sevenfold.contracts.verdicts import ErrorCode
from sevenfold.workflows.runs.failures import to_application_error


def derive_events(reaction: ReactionInput, reply: Reply, now: datetime) -> list[CloudEvent]:
    """The events that a reply means, in order. Their ids are made of the reaction's: published twice, they are the
    same events.

    Raises the failure of an agent whose `events` are none.
    """
    spec = reaction.spec
    events = []
    for number, output in enumerate(_outputs(spec.publishes, reply)):
        fields = {**_envelope(reaction, number, now), **output}
        try:
            event = event_from_json(fields)
        except InvalidEventError as error:
            detail = f"The agent's events[{number}] cannot be published: {error}."
            raise to_application_error(RunError(code=ErrorCode.AGENT_REJECTED, detail=detail)) from None
        if spec.publish_when is None or matches(spec.publish_when, event, f"publishWhen of {spec.subscription}"):
            events.append(event)
    return events


def _outputs(publishes: str | None, reply: Reply) -> list[dict[str, Any]]:
    raw_events = (reply.data or {}).get("events")
    by_default = {} if publishes is None else {"type": publishes}
    if isinstance(raw_events, list) and all(isinstance(one, dict) for one in raw_events):
        known = ("type", "data", "subject")
        return [
            {**by_default, **{k: v for k, v in one.items() if k in known}}
            for one in raw_events
            if isinstance(one, dict)
        ]
    if publishes is None:
        return []
    full_reply = {"response": reply.response, "confidence": reply.confidence}
    return [{**by_default, "data": reply.data if reply.data is not None else full_reply}]


def _envelope(reaction: ReactionInput, number: int, now: datetime) -> dict[str, Any]:
    cause = reaction.event
    event_id = f"{reaction.spec.id}-{number}"
    envelope = {
        "specversion": "1.0",
        "id": event_id,
        "source": subscription_source(reaction.spec.subscription),
        "time": now.isoformat(),
        "datacontenttype": "application/json",
        "subject": cause.subject,
        "correlationid": find_correlation_id(cause, reaction.event_id),
        "causationid": cause.id,
        "hops": count_hops(cause) + 1,
        "traceparent": child_traceparent(cause, event_id),
        "replayof": cause.attribute("replayof"),
    }
    return {name: value for name, value in envelope.items() if value is not None}


def child_traceparent(cause: CloudEvent, event_id: str) -> str:
    """W3C trace context: the cause's trace goes on with a span of its own; without one a trace begins."""
    digest = hashlib.sha256(event_id.encode()).hexdigest()
    parts = (cause.attribute("traceparent") or "").split("-")
    if len(parts) >= 4 and len(parts[1]) == 32:
        return f"{parts[0]}-{parts[1]}-{digest[:16]}-{parts[3]}"
    return f"00-{hashlib.sha256(cause.id.encode()).hexdigest()[:32]}-{digest[:16]}-01"
