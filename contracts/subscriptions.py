"""Subscriptions: which events an agent reacts to, and what becomes of its answers."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from sevenfold.contracts.agent import AgentName
from sevenfold.contracts.event_filters import EventFilter
from sevenfold.contracts.payload import JsonObject, Payload, RequestBody, Seconds
from sevenfold.contracts.requests import TaskName, WebhookSecret, WebhookUrl

SubscriptionName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
EventType = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,256}$")]

_EXAMPLE: dict[str, Any] = {
    "name": "enrich-customers",
    "filter": {"exact": {"type": "customer.created"}},
    "agent": "builtin",
    "task": "enrich_customer",
    "publishes": "customer.enriched",
}

# Of a tenant's subscriptions that the API keeps, as JSON: every worker reads them twice a second while events come
# in, and they never leave their workflow for the store of large payloads, which forgets what is old.
MAX_REGISTRY_BYTES = 200_000


class _SubscriptionFields(RequestBody):
    filter: EventFilter = Field(description="Which events: exact, prefix, suffix, all, any, not or data.")
    task: TaskName
    params: JsonObject = Field(default={}, description="Options for the agent.")
    publishes: EventType | None = Field(
        default=None,
        description="The type of the event that tells what the agent found. An agent that has more to tell answers "
        "with `events` in its data, a list of `{type, data, subject}`.",
    )
    publish_when: EventFilter | None = Field(
        default=None, description="Which of those events are published; all, if absent."
    )
    order_by: str | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="An attribute, or `data.` and a path: events that have the same value there are reacted to one "
        "after the other, in the order in which they were accepted.",
    )
    concurrency: int | None = Field(default=None, ge=1, le=1_000, description="Events that are reacted to at once.")
    timeout: Annotated[Seconds, Field(ge=0.5, le=86_400)] = Field(
        default=3_600.0, description="Deadline of a reaction, in seconds."
    )
    max_attempts: int = Field(default=20, ge=1, le=10_000, description="How often the agent is asked.")
    priority: int = Field(default=3, ge=1, le=5, description="1 is served first, 5 last.")
    allow_self_trigger: bool = Field(
        default=False, description="Whether it also reacts to events that it published itself."
    )


class SubscriptionBody(_SubscriptionFields):
    """A subscription as `PUT /subscriptions/{name}` takes it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{key: value for key, value in _EXAMPLE.items() if key != "name"}]}
    )

    agent: AgentName | None = Field(default=None, description="The agent's name; the configured default if absent.")
    webhook_url: WebhookUrl | None = Field(default=None, description="Where the end of every reaction is posted to.")
    webhook_secret: WebhookSecret | None = None


class SubscriptionRequest(SubscriptionBody):
    """A subscription as `POST /subscriptions` takes it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    name: SubscriptionName


class SubscriptionConfig(_SubscriptionFields):
    """A subscription as it stands in `sevenfold.toml`, where no secret belongs."""

    name: SubscriptionName
    agent: AgentName | None = None
    webhook_url: WebhookUrl | None = None
    webhook_secret_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None


class SubscriptionWebhook(Payload):
    """Where the ends of reactions go; the secrets are sealed for the subscription."""

    url: str
    host: str
    sealed_secrets: str


class Subscription(Payload):
    """A subscription as it is kept, and as reactions are made of it."""

    name: str
    filter: EventFilter
    agent: str
    task: str
    params: JsonObject = {}
    publishes: str | None = None
    publish_when: EventFilter | None = None
    order_by: str | None = None
    concurrency: int | None = None
    timeout: Seconds = 3_600.0
    max_attempts: int = 20
    priority: int = 3
    allow_self_trigger: bool = False
    webhook: SubscriptionWebhook | None = None


def sealing_context(tenant: str, name: str) -> str:
    """What a subscription's secrets are sealed for."""
    return f"{tenant}:subscription:{name}"


def build_subscription(
    fields: SubscriptionBody | SubscriptionConfig, name: str, default_agent: str, webhook: SubscriptionWebhook | None
) -> Subscription:
    """What is kept of a request, or of the configuration's."""
    values = {field: getattr(fields, field) for field in _SubscriptionFields.model_fields}
    return Subscription(name=name, agent=fields.agent or default_agent, webhook=webhook, **values)


class RegistryState(Payload):
    """The API's subscriptions of one tenant, by name; `change_count` counts what was done to them."""

    subscriptions: dict[str, Subscription] = {}
    change_count: int = 0


class PutSubscriptionInput(Payload):
    """A subscription to be kept; `create_only`: not in the place of another."""

    subscription: Subscription
    create_only: bool = False


def registry_workflow_id(tenant: str) -> str:
    """The workflow id under which a tenant's subscriptions are kept; no public id looks so."""
    return f"{tenant}:subscriptions"


# The memos of that workflow: one for each subscription, so that a change writes no others.
SUBSCRIPTION_MEMO_PREFIX = "subscription:"


def subscription_memos(state: RegistryState) -> dict[str, Subscription]:
    """All of them."""
    return {f"{SUBSCRIPTION_MEMO_PREFIX}{name}": one for name, one in state.subscriptions.items()}


# Why a change is refused: the types of the registry's failures, which the door reads as problems.
SUBSCRIPTION_EXISTS, SUBSCRIPTION_MISSING, SUBSCRIPTIONS_FULL = (
    "SubscriptionExists",
    "SubscriptionMissing",
    "SubscriptionsFull",
)
