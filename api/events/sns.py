"""`POST /events/sns`: takes what a subscription of Amazon SNS sends, verified by its signature instead of a key."""

from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Request

from sevenfold.adapters.brokers.aws.envelopes import Content, open_envelopes
from sevenfold.adapters.brokers.mapping import map_message
from sevenfold.adapters.brokers.message import BrokerMessage, event_headers, parse_event
from sevenfold.adapters.events.ingest import EventIngest
from sevenfold.adapters.events.sns_signatures import SnsUnavailableError, SnsVerifier, UntrustedMessageError
from sevenfold.api.dependencies import component
from sevenfold.api.events.acceptance import AcceptedItem, EventsAccepted, count_items, to_accepted_item
from sevenfold.api.events.dependencies import EventIngestDep
from sevenfold.api.http.authorization import SNS_PATH
from sevenfold.api.http.disk_guard import DiskSpaceDep, check_storage
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.problems import ProblemError, ProblemType, invalid_field
from sevenfold.api.http.request_id import traceparent
from sevenfold.api.http.strict_json import InvalidJsonError, StrictJsonRoute, validate_body
from sevenfold.contracts.config.brokers import ConsumeConfig
from sevenfold.contracts.events.cloudevents import InvalidEventError
from sevenfold.contracts.events.event_driven import VIA_HTTP
from sevenfold.contracts.events.sns import MAX_SNS_BYTES, SnsMessage, SnsTopicConfig, SnsType
from sevenfold.contracts.json.strict import parse_json

log = structlog.get_logger(__name__)

router = APIRouter(tags=["event-driven"], route_class=StrictJsonRoute)

SnsVerifierDep = Annotated[SnsVerifier, Depends(component("sns_verifier"))]

_RAW_DELIVERY = "x-amz-sns-rawdelivery"
_RETRY_SECONDS = 5
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A message of SNS, in its envelope with a signature.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
}


@router.post(
    SNS_PATH,
    operation_id="publishSnsMessage",
    summary="Publish an event from Amazon SNS",
    status_code=202,
    response_model_exclude_none=True,
    responses=PROBLEMS,
    openapi_extra=_BODY,
)
async def accept_sns_message(
    request: Request, verifier: SnsVerifierDep, ingest: EventIngestDep, disk: DiskSpaceDep
) -> EventsAccepted:
    """Needs no key: the message must be signed by SNS, for a topic of the configuration. Confirms subscriptions. A
    repeated delivery is a duplicate; a message that is no event becomes a dead letter.
    """
    if not verifier.has_topics:
        raise ProblemError(ProblemType.NOT_FOUND, "The configuration has no topics of SNS: list them under [[sns]].")
    check_storage(disk)
    # Before anything is read: anybody may send it.
    if int(request.headers.get("content-length") or 0) > MAX_SNS_BYTES:
        raise _too_large()
    body = await request.body()
    message = _parse(body, is_raw=request.headers.get(_RAW_DELIVERY) == "true")
    try:
        topic = await verifier.verify(message)
        structlog.contextvars.bind_contextvars(tenant=topic.tenant)
        if message.type is SnsType.SUBSCRIPTION:
            await verifier.confirm(message)
    except UntrustedMessageError as error:
        raise ProblemError(ProblemType.FORBIDDEN, str(error)) from None
    except SnsUnavailableError as error:
        raise ProblemError(ProblemType.ACCESS_UNAVAILABLE, str(error), retry_after=_RETRY_SECONDS) from None
    if message.type is not SnsType.NOTIFICATION:
        if message.type is SnsType.UNSUBSCRIPTION:
            log.warning("a topic of SNS does not send events here any more", topic=topic.topic)
        return count_items([])
    return count_items([await _accept(ingest, topic, body, message.message_id)])


def _parse(body: bytes, *, is_raw: bool) -> SnsMessage:
    if is_raw:
        raise invalid_field(
            f"header:{_RAW_DELIVERY}",
            "Raw messages are not signed. Turn raw message delivery off for this subscription.",
        )
    if len(body) > MAX_SNS_BYTES:
        raise _too_large()
    try:
        value = parse_json(body)
    except ValueError as error:
        raise InvalidJsonError(error) from None
    return validate_body(SnsMessage, value)


def _too_large() -> ProblemError:
    return ProblemError(ProblemType.TOO_LARGE, f"A message of SNS has at most {MAX_SNS_BYTES:,} bytes.")


async def _accept(ingest: EventIngest, topic: SnsTopicConfig, body: bytes, message_id: str) -> AcceptedItem:
    content = open_envelopes(Content(message_id, {}, None, body))
    message = BrokerMessage(
        source=ConsumeConfig.model_validate({"from": "sns", "tenant": topic.tenant, "map": topic.map}),
        place=content.place,
        headers=content.headers,
        content_type=content.content_type,
        body=content.body,
        ack=_acknowledge,
    )
    try:
        event = parse_event(message) or map_message(message)
    except InvalidEventError as error:
        reason = f"The SNS message is not a CloudEvent: {error}"[:1_000]
        identity = await ingest.reject(topic.tenant, "poison", reason, VIA_HTTP, event_headers(message), message.body)
        return AcceptedItem(status="rejected", id=identity, detail=reason)
    accepted = await ingest.accept(topic.tenant, event, VIA_HTTP, traceparent=traceparent())
    return to_accepted_item(event, accepted)


async def _acknowledge() -> None:
    """The response acknowledges the message."""
