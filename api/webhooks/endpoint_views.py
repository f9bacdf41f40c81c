"""Stored webhook endpoints as requests give them and answers show them."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from sevenfold.contracts.agents.interface import AgentName
from sevenfold.contracts.payload import Payload, RequestBody
from sevenfold.contracts.runs.requests import WebhookUrl
from sevenfold.contracts.webhooks.delivery import WebhookEvent
from sevenfold.contracts.webhooks.endpoints import Disablement, EndpointName, WebhookEndpoint

_DAY = 86_400

_EXAMPLE: dict[str, Any] = {
    "name": "crm",
    "url": "https://client.com/webhooks/ai-results",
    "events": ["started", "completed"],
}

Events = Annotated[
    list[WebhookEvent],
    Field(
        min_length=1,
        max_length=len(WebhookEvent),
        description="What runs deliver: `started`, `progress` (at most every 0.5 s), `completed` (also failed and "
        "cancelled). A run keeps those of its start.",
    ),
]
Agents = Annotated[
    list[AgentName], Field(max_length=100, description="The agents whose runs are delivered; null for all.")
]


class EndpointRequest(RequestBody):
    """Body of `POST /webhooks/endpoints`."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    name: EndpointName | None = Field(
        default=None, description="By which starts name it; made of the URL's host if absent."
    )
    url: WebhookUrl
    events: Events = [WebhookEvent.COMPLETED]
    agents: Agents | None = None
    is_default: bool = Field(
        default=False,
        strict=True,
        description="Whether it applies to starts that name no webhook. There is one at most.",
    )


class EndpointChange(RequestBody):
    """Body of `PATCH /webhooks/endpoints/{id}`: the fields to change."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"events": ["completed"]}]})

    name: EndpointName | None = None
    url: WebhookUrl | None = None
    events: Events | None = None
    agents: Agents | None = None
    is_default: Annotated[bool, Field(strict=True)] | None = None


class RotateSecretRequest(RequestBody):
    """Body of `POST /webhooks/endpoints/{id}/rotate`."""

    overlap_seconds: int = Field(
        default=_DAY,
        ge=0,
        le=7 * _DAY,
        strict=True,
        description="How long the previous secret signs beside the new one.",
    )


class SecretView(Payload):
    """A secret that signs, without itself."""

    expires_at: datetime | None = Field(description="Null for the current one.")


class EndpointView(Payload):
    """An endpoint without its secret."""

    id: str
    name: str
    url: str = Field(description="Without its query, which often is a credential.")
    events: list[WebhookEvent]
    agents: list[str] | None = Field(description="The agents whose runs are delivered; null for all.")
    is_default: bool = Field(description="Whether it applies to starts that name no webhook.")
    created_at: datetime
    secrets: list[SecretView] = Field(description="The secrets that sign now, newest first.")
    failing_since: datetime | None = Field(description="Since when every delivery has failed; null if none has.")
    disabled: Disablement | None = Field(description="Why it gets no deliveries; null if it gets them.")


class EndpointStatistics(Payload):
    """Figures of the endpoint's latest deliveries, 200 at most."""

    deliveries: int
    attempts: int
    succeeded: int = Field(description="Attempts that the receiver accepted.")
    success_rate: float | None = Field(description="Of the attempts, from 0 to 1; null without any.")
    p50_milliseconds: int | None = Field(description="Median duration of answered attempts; null without any.")
    p95_milliseconds: int | None
    last_attempt_at: datetime | None


class EndpointDetail(EndpointView):
    """An endpoint with figures of its deliveries."""

    statistics: EndpointStatistics


class NewSecretView(EndpointView):
    """An endpoint with a new secret, which no other answer shows."""

    secret: str = Field(examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])


class EndpointList(Payload):
    """All endpoints, by name."""

    items: list[EndpointView]
    next_cursor: str | None = None


class EndpointTestView(Payload):
    """What the receiver answered to a sample."""

    succeeded: bool
    webhook_id: str = Field(description="The sample's `webhook-id`.")
    status: int | None = Field(description="The receiver's HTTP status, if it answered.")
    milliseconds: int
    answer: str = Field(description="The first kilobyte of the receiver's answer.")
    reason: str | None = Field(description="Why it failed.")


def view_endpoint(endpoint: WebhookEndpoint, url: str) -> EndpointView:
    """Returns an endpoint as the API shows it, with this URL."""
    return EndpointView(
        id=endpoint.id,
        name=endpoint.name,
        url=url,
        events=endpoint.events,
        agents=endpoint.agents,
        is_default=endpoint.is_default,
        created_at=endpoint.created_at,
        secrets=[SecretView(expires_at=one.expires_at) for one in endpoint.valid_secrets(datetime.now(UTC))],
        failing_since=endpoint.health.failing_since,
        disabled=endpoint.disabled,
    )
