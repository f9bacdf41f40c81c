"""Erasure of a tenant: input, progress and result of the workflow `TenantErasure`."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from sevenfold.contracts import workflow_types
from sevenfold.contracts.payload import Payload, Seconds
from sevenfold.contracts.runs.run import OTHER_LARGE_TYPES, WORKFLOW_TYPES

# The memo that holds an ErasureProgress, so that reading it needs no worker.
ERASURE_MEMO = "progress"

# The workflow types whose executions belong to a tenant; their ids begin with its name. Other people's workflows in
# the same namespace may have such ids too, and must not be touched.
TENANT_WORKFLOW_TYPES = (
    *WORKFLOW_TYPES.values(),
    *OTHER_LARGE_TYPES,
    workflow_types.WEBHOOK_DELIVERY,
    workflow_types.WEBHOOK_UPDATES,
    workflow_types.RUN_REPLY,
    workflow_types.INTERACTION_EVENT,
    workflow_types.WEBHOOK_ENDPOINTS,
    workflow_types.ENDPOINT_HEALTH,
    workflow_types.SUBSCRIPTION_REGISTRY,
    workflow_types.USAGE_LEDGER,
)


def erasure_workflow_id(tenant: str) -> str:
    """Returns the workflow id of a tenant's erasure. `erasure` is a reserved tenant name."""
    return f"erasure:{tenant}"


class ErasurePhase(StrEnum):
    """What an erasure does now. `stopped`: an operator terminated it; repeating the request continues it."""

    CANCELLING = "cancelling"
    REMOVING_HISTORIES = "removing histories"
    REMOVING_PAYLOADS = "removing payloads"
    REMOVING_KEYS = "removing keys"
    DONE = "done"
    STOPPED = "stopped"


class Leftover(Payload):
    """Something that the erasure could not remove."""

    what: str
    count: int | None = Field(default=None, description="How many; null if that is unknown.")
    until: datetime | None = Field(default=None, description="When it is removed at the latest, if that is known.")
    reason: str = Field(description="Why it is left, and what removes it.")


class ErasureInput(Payload):
    """Input of `TenantErasure`. `grace_seconds`: how long cancelled work has to end before it is terminated."""

    tenant: str
    requested_at: datetime
    grace_seconds: Seconds


class ErasureProgress(Payload):
    """Memo and result of `TenantErasure`. `configured_keys`: the tenant's keys in `sevenfold.toml`, which work again
    when the erasure is done.
    """

    phase: ErasurePhase
    requested_at: datetime
    ended_at: datetime | None = None
    cancelled: int = 0
    terminated: int = 0
    removed_histories: int = 0
    removed_streams: int = 0
    removed_payloads: int = 0
    removed_keys: int = 0
    configured_keys: int = 0
    left: list[Leftover] = []


class StopInput(Payload):
    """Stops a tenant's work: what is still open at `deadline` is terminated."""

    tenant: str
    deadline: datetime


class StopResult(Payload):
    """Number of executions whose cancellation was requested, and of those that were terminated."""

    cancelled: int = 0
    terminated: int = 0


class HistoryRemoval(Payload):
    """Result of one pass, and details of its heartbeats: executions at its start, and those that are left.

    `refusal`: why Temporal refuses to delete some of them.
    """

    found: int
    left: int
    refusal: str | None = None

    @property
    def removed(self) -> int:
        """Executions that the pass removed, at least."""
        return max(0, self.found - self.left)


class StoreRemoval(Payload):
    """Number of removed payloads, and of removed streams in Redis."""

    payloads: int
    streams: int


class KeyRemoval(Payload):
    """Number of the tenant's keys that were removed, and of those that `sevenfold.toml` has."""

    removed: int
    configured: int


class SurveyInput(Payload):
    """Asks what is left of a tenant. `refusal`: why Temporal refused to delete executions."""

    tenant: str
    refusal: str | None = None


class Survey(Payload):
    """What is left of a tenant."""

    left: list[Leftover]
