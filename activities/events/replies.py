"""The activity that makes the outcome of a run the reply to the message that started it."""

from datetime import UTC, datetime
from typing import Any

from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCStatusCode

from sevenfold.activities.events.publish import refusals_as_failures
from sevenfold.adapters.events.ingest import EventIngest
from sevenfold.adapters.temporal.run_outcomes import await_outcome
from sevenfold.contracts.agents.errors import ErrorCode
from sevenfold.contracts.events.cloudevents import CloudEvent, InvalidEventError, event_from_json
from sevenfold.contracts.events.event_driven import VIA_DERIVED, OutboundRoute, broker_task_queue
from sevenfold.contracts.identity import parse_public_id, parse_tenant
from sevenfold.contracts.json.pointers import MISSING, find_pointer
from sevenfold.contracts.messages.maps import MessageFormat
from sevenfold.contracts.runs.message_runs import (
    ERROR,
    OUTCOME_ATTRIBUTE,
    REPLIES_SOURCE,
    REPLY,
    RESULT,
    ReplyAddress,
    ReplyInput,
)
from sevenfold.contracts.runs.outcomes import webhook_body
from sevenfold.contracts.runs.run import RunError, RunOutcome, RunResult


class RunReplies:
    """Publishes replies as events, by the routes or to an address of their own."""

    def __init__(self, client: Client, ingest: EventIngest, task_queue: str) -> None:
        self._client = client
        self._ingest = ingest
        self._task_queue = broker_task_queue(task_queue)

    @activity.defn(name="publish_reply")
    async def publish_reply(self, reply: ReplyInput) -> str:
        """Waits until the run is closed, which is about to end, and accepts its outcome as an event; returns that
        event's public id. Idempotent: a retry accepts the same event.
        """
        tenant, run_id = parse_tenant(reply.run_workflow_id), parse_public_id(reply.run_workflow_id)
        handle: WorkflowHandle[Any, RunResult] = self._client.get_workflow_handle(
            reply.run_workflow_id, result_type=RunResult
        )
        # NOT_FOUND: the run was deleted.
        with refusals_as_failures((RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.NOT_FOUND)):
            event = build_reply(run_id, reply, await await_outcome(handle))
            accepted = await self._ingest.accept(
                tenant, event, VIA_DERIVED, traceparent=reply.traceparent, reply_route=self._route(reply.address)
            )
        return accepted.event_id

    def _route(self, address: ReplyAddress) -> OutboundRoute | None:
        if address.to is None:
            return None
        form = MessageFormat.PLAIN if address.is_plain else MessageFormat.CLOUDEVENTS
        return OutboundRoute(
            broker=address.broker,
            to=address.to,
            task_queue=self._task_queue,
            format=form,
            is_sender_chosen=address.is_sender_chosen,
        )


def build_reply(run_id: str, reply: ReplyInput, outcome: RunOutcome) -> CloudEvent:
    """Returns the event of an outcome. Its data is the outcome as webhooks have it; in a plain message the result or
    the error alone, or what the map makes of the outcome. A result that no event can hold is replaced by an error.
    """
    try:
        return _build_event(run_id, reply, outcome)
    except InvalidEventError as refusal:
        reason = f"The result is too large for a reply, or cannot be one ({refusal}). Read the run {run_id}."
        error = RunError(code=ErrorCode.EVENT_REFUSED, detail=reason[:1_000])
        return _build_event(run_id, reply, RunOutcome(outcome.status, error=error))


def _build_event(run_id: str, reply: ReplyInput, outcome: RunOutcome) -> CloudEvent:
    body, address = webhook_body(run_id, outcome), reply.address
    has_failed = outcome.result is None
    raw: dict[str, Any] = {
        "specversion": "1.0",
        "id": run_id if reply.generation == 1 else f"{run_id}-{reply.generation}",
        "source": REPLIES_SOURCE,
        "type": f"run.{outcome.status}",
        "subject": run_id,
        "time": datetime.now(UTC).isoformat(),
        "datacontenttype": "application/json",
        OUTCOME_ATTRIBUTE: ERROR if has_failed else RESULT,
        "data": _plain_data(body, address.map, has_failed=has_failed) if address.is_plain else body,
    }
    if address.correlation_id:
        raw["correlationid"] = address.correlation_id
    return event_from_json(raw)


def _plain_data(body: dict[str, Any], reply_map: dict[str, str] | None, *, has_failed: bool) -> Any:
    if reply_map is None:
        return body.get("result") if not has_failed else {"status": body["status"], "error": body.get("error")}
    found = {name: _resolve(value, body) for name, value in reply_map.items()}
    data = {name: value for name, value in found.items() if value is not MISSING}
    has_error = any(value.startswith(f"{REPLY}/error") and name in data for name, value in reply_map.items())
    if has_failed and not has_error:
        data["error"] = body.get("error") or {"status": body["status"]}
    return data


def _resolve(value: str, body: dict[str, Any]) -> Any:
    return find_pointer(body, value.removeprefix(REPLY)) if value.startswith(REPLY) else value
