"""Stored webhook endpoints of a tenant: their records, and the changes of the workflow `WebhookEndpoints`."""

from datetime import datetime, timedelta
from typing import Annotated

from pydantic import Field

from sevenfold.contracts.payload import Payload, Seconds
from sevenfold.contracts.webhooks.delivery import EndpointState, WebhookEvent

ENDPOINT_PREFIX = "whe"

EndpointName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]

# Size limit of a tenant's endpoints as JSON: every process reads all of them for a start, twice a second at most.
MAX_ENDPOINTS_BYTES = 200_000

# An endpoint is disabled when it has failed for this long without a success: as long as a delivery is retried.
DISABLE_AFTER = timedelta(hours=72)

# So many secrets sign at most. Each rotation adds one, and the overlap of an earlier one may last.
MAX_SECRETS = 3

# Memos of the workflow: one per endpoint, so that a change rewrites only its own.
ENDPOINT_MEMO_PREFIX = "endpoint:"

# The `source` of events about endpoints, and their types.
ENDPOINTS_SOURCE = "/sevenfold/webhooks/endpoints"
ENDPOINT_DISABLED_TYPE = "webhook.endpoint.disabled"
ENDPOINT_ENABLED_TYPE = "webhook.endpoint.enabled"

# Failure types of rejected changes, which the API maps to problems.
ENDPOINT_EXISTS, ENDPOINT_MISSING, ENDPOINTS_FULL, ENDPOINT_TESTS_OPEN = (
    "EndpointExists",
    "EndpointMissing",
    "EndpointsFull",
    "EndpointTestsOpen",
)

# Tests of a tenant's endpoints at the same time. A test is an update that waits for the receiver, and Temporal takes
# ten updates of a workflow at a time: the others are left for changes.
MAX_OPEN_TESTS = 3


def endpoints_workflow_id(tenant: str) -> str:
    """Returns the workflow id of a tenant's endpoints. It cannot be a public id."""
    return f"{tenant}:endpoints"


def endpoint_sealing_context(tenant: str, endpoint_id: str) -> str:
    """Returns the sealing context of an endpoint's secrets."""
    return f"{tenant}:webhook-endpoint:{endpoint_id}"


class EndpointSecret(Payload):
    """A sealed secret. The current one does not expire; one that a rotation replaced signs until `expires_at`."""

    sealed: str
    expires_at: datetime | None = None


class Disablement(Payload):
    """Why an endpoint gets no deliveries, and since when."""

    at: datetime
    reason: str


class EndpointFields(Payload):
    """What a client may set. The URL is sealed for the endpoint; `host` is its host. `agents`: those whose runs it
    gets; None for all.
    """

    name: str
    sealed_url: str
    host: str
    events: list[WebhookEvent] = [WebhookEvent.COMPLETED]
    agents: list[str] | None = None
    is_default: bool = False


class WebhookEndpoint(EndpointFields):
    """An endpoint as it is stored. `secrets`: newest first. `disabled` and `health` are its only state: an endpoint
    that is disabled gets tests alone.
    """

    id: str
    created_at: datetime
    secrets: list[EndpointSecret]
    health: EndpointState = EndpointState()
    disabled: Disablement | None = None

    def accepts(self, agent: str) -> bool:
        """Whether runs of the agent are delivered to it."""
        return self.agents is None or agent in self.agents

    def valid_secrets(self, now: datetime) -> list[EndpointSecret]:
        """Returns the secrets that sign now, newest first."""
        return [one for one in self.secrets if one.expires_at is None or now < one.expires_at]


class EndpointsState(Payload):
    """A tenant's endpoints, by id. `event_count`: events published about them."""

    endpoints: dict[str, WebhookEndpoint] = {}
    event_count: int = 0


class EditEndpointInput(Payload):
    """Sets the fields named in `changed` to those of `fields`."""

    id: str
    fields: EndpointFields
    changed: list[str]


class RotateInput(Payload):
    """Adds a new secret. The previous ones sign for `overlap_seconds` more, at most."""

    id: str
    sealed: str
    overlap_seconds: Seconds


class DisableInput(Payload):
    """Disables an endpoint by hand."""

    id: str
    reason: str


class EndpointResult(Payload):
    """Whether the endpoint accepted a delivery."""

    id: str
    succeeded: bool


class EndpointTestInput(Payload):
    """A test of an endpoint: one signed POST with the id `webhook_id`."""

    tenant: str
    id: str
    webhook_id: str


def endpoint_memos(state: EndpointsState) -> dict[str, WebhookEndpoint]:
    """Returns the memos of all endpoints."""
    return {f"{ENDPOINT_MEMO_PREFIX}{endpoint_id}": one for endpoint_id, one in state.endpoints.items()}
