"""The events that a reaction publishes, with `correlationid`, `causationid` and `hops`."""

from datetime import datetime
from typing import Any

from sevenfold.adapters.events.matching import matches
from sevenfold.contracts.agents.errors import ErrorCode
from sevenfold.contracts.agents.interface import Reply
from sevenfold.contracts.events.cloudevents import CloudEvent, InvalidEventError, event_from_json
from sevenfold.contracts.events.event_driven import ReactionInput, count_hops, find_correlation_id
from sevenfold.contracts.events.sources import subscription_source
from sevenfold.contracts.runs.run import RunError
from sevenfold.contracts.tracing import TraceContext
from sevenfold.workflows.runs.failures import to_application_error


def derive_events(reaction: ReactionInput, reply: Reply, now: datetime, trace: TraceContext) -> list[CloudEvent]:
    """Returns the events that a reply contains, in order. `trace`: the context of the reaction's span.

    Their ids are `<reaction id>-<number>`, so a repeated publication is detected as a duplicate.

    Raises ApplicationError with the type `AgentRejected` if an element of the agent's `events` is not a valid event.
    """
    cause = reaction.cause
    events = []
    for number, output in enumerate(_outputs(reaction.publishes, reply)):
        fields = {**_envelope(reaction, cause, number, now, trace), **output}
        try:
            event = event_from_json(fields)
        except InvalidEventError as error:
            detail = f"The agent's events[{number}] is not a valid CloudEvent: {error}."
            raise to_application_error(RunError(code=ErrorCode.AGENT_REJECTED, detail=detail)) from None
        condition = reaction.publish_when
        if condition is None or matches(condition, event, f"publishWhen of {reaction.subscription}"):
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


def _envelope(
    reaction: ReactionInput, cause: CloudEvent, number: int, now: datetime, trace: TraceContext
) -> dict[str, Any]:
    event_id = f"{reaction.request.run_id}-{number}"
    envelope = {
        "specversion": "1.0",
        "id": event_id,
        "source": subscription_source(reaction.subscription),
        "time": now.isoformat(),
        "datacontenttype": "application/json",
        "subject": cause.subject,
        "correlationid": find_correlation_id(cause, reaction.event_id),
        "causationid": cause.id,
        "hops": count_hops(cause) + 1,
        "traceparent": str(trace),
        "replayof": cause.attribute("replayof"),
    }
    return {name: value for name, value in envelope.items() if value is not None}
