"""Subscriptions: which events an agent reacts to, and what the reaction publishes."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from sevenfold.contracts.access.principals import TenantName
from sevenfold.contracts.agents.interface import AgentName
from sevenfold.contracts.events.filters import EventFilter
from sevenfold.contracts.identity import DEFAULT_TENANT
from sevenfold.contracts.payload import JsonObject, Payload, RequestBody, Seconds
from sevenfold.contracts.runs.requests import TaskName, WebhookSecret, WebhookUrl
from sevenfold.contracts.webhooks.endpoints import EndpointName

SubscriptionName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
EventType = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,256}$")]

_EXAMPLE: dict[str, Any] = {
    "name": "enrich-customers",
    "filter": {"exact": {"type": "customer.created"}},
    "agent": "builtin",
    "task": "enrich_customer",
    "publishes": "customer.enriched",
}

# Size limit of a tenant's subscriptions as JSON. Every worker reads them twice a second while events arrive. They
# never leave their workflow for the store of large payloads, which removes old payloads.
MAX_SUBSCRIPTIONS_BYTES = 200_000


class _SubscriptionFields(RequestBody):
    filter: EventFilter = Field(description="Which events match: exact, prefix, suffix, all, any, not or data.")
    task: TaskName
    params: JsonObject = Field(default={}, description="Options for the agent.")
    publishes: EventType | None = Field(
        default=None,
        description="The type of the event that the agent's answer is published as. An agent may publish several by "
        "`events` in its data, a list of `{type, data, subject}`.",
    )
    publish_when: EventFilter | None = Field(
        default=None, description="Which of those events are published; all if absent."
    )
    order_by: str | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="An attribute, or `data.` and a path. Events with the same value are processed one after "
        "another, in the order of acceptance.",
    )
    concurrency: int | None = Field(
        default=None, ge=1, le=1_000, description="Concurrent reactions of the subscription."
    )
    timeout: Annotated[Seconds, Field(ge=0.5, le=86_400)] = Field(
        default=3_600.0, description="Deadline of a reaction, in seconds."
    )
    max_attempts: int = Field(default=20, ge=1, le=10_000, description="Attempts to call the agent.")
    priority: int = Field(default=3, ge=1, le=5, description="1 is served first, 5 last.")
    allow_self_trigger: bool = Field(
        default=False, description="Whether the subscription also matches events that it published itself."
    )


class SubscriptionBody(_SubscriptionFields):
    """Body of `PUT /subscriptions/{name}`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{key: value for key, value in _EXAMPLE.items() if key != "name"}]}
    )

    agent: AgentName | None = Field(default=None, description="The agent's name; the configured default if absent.")
    webhook_endpoint: EndpointName | None = Field(
        default=None, description="The name of a stored endpoint that gets every reaction's deliveries."
    )
    webhook_url: WebhookUrl | None = Field(default=None, description="URL that gets the outcome of every reaction.")
    webhook_secret: WebhookSecret | None = None


class SubscriptionRequest(SubscriptionBody):
    """Body of `POST /subscriptions`."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    name: SubscriptionName


class SubscriptionConfig(_SubscriptionFields):
    """A subscription in `sevenfold.toml`, which holds no secrets."""

    name: SubscriptionName
    """lower-case letters, digits and `.` `_` `-`, at most 64"""
    tenant: TenantName = DEFAULT_TENANT
    """the tenant whose events it matches"""
    agent: AgentName | None = None
    """agent to call; unset: the default agent"""
    webhook_url: WebhookUrl | None = None
    """webhook for the end of every reaction"""
    webhook_secret_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """variable with its secret"""


class SubscriptionWebhook(Payload):
    """The webhook of a subscription's reactions: a URL, which is sealed for the subscription as its secrets are, or a
    stored endpoint.
    """

    sealed_url: str = ""
    host: str
    sealed_secrets: str = ""
    endpoint_id: str | None = None


class Subscription(Payload):
    """A subscription as it is stored and matched. `key_id`: the lineage of the key that stored it, for its quota."""

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
    key_id: str | None = None


def sealing_context(tenant: str, name: str) -> str:
    """Returns the sealing context of a subscription's secrets."""
    return f"{tenant}:subscription:{name}"


def build_subscription(
    fields: SubscriptionBody | SubscriptionConfig, name: str, default_agent: str, webhook: SubscriptionWebhook | None
) -> Subscription:
    """Builds the subscription of a request or a configuration section."""
    values = {field: getattr(fields, field) for field in _SubscriptionFields.model_fields}
    return Subscription(name=name, agent=fields.agent or default_agent, webhook=webhook, **values)


class SubscriptionRegistryState(Payload):
    """A tenant's subscriptions that were created by the API, by name. `change_count` increases with every change."""

    subscriptions: dict[str, Subscription] = {}
    change_count: int = 0


class SubscriptionQuota(Payload):
    """How many subscriptions the tenant may have, or one of its keys, by the key's lineage."""

    limit: int
    key_id: str | None = None

    def counts(self, subscription: Subscription) -> bool:
        """Whether the subscription counts against it."""
        return self.key_id is None or subscription.key_id == self.key_id


class PutSubscriptionInput(Payload):
    """A subscription to store. `create_only`: fails if the name exists. `quotas`: of the tenant and the key."""

    subscription: Subscription
    create_only: bool = False
    quotas: list[SubscriptionQuota] = []


def registry_workflow_id(tenant: str) -> str:
    """Returns the workflow id of a tenant's subscription registry. It cannot be a public id."""
    return f"{tenant}:subscriptions"


# Memos of the registry: one per subscription, so that a change rewrites only its own.
SUBSCRIPTION_MEMO_PREFIX = "subscription:"


def subscription_memos(state: SubscriptionRegistryState) -> dict[str, Subscription]:
    """Returns the memos of all subscriptions."""
    return {f"{SUBSCRIPTION_MEMO_PREFIX}{name}": one for name, one in state.subscriptions.items()}


# Failure types of rejected changes, which the API maps to problems.
SUBSCRIPTION_EXISTS, SUBSCRIPTION_MISSING, SUBSCRIPTIONS_FULL, SUBSCRIPTIONS_OVER_QUOTA = (
    "SubscriptionExists",
    "SubscriptionMissing",
    "SubscriptionsFull",
    "SubscriptionsOverQuota",
)
