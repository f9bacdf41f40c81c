"""What the stores of large payloads share beyond Temporal's driver interface."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, runtime_checkable

from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.converter import DataConverter, StorageDriverStoreContext, StorageDriverWorkflowInfo

from sevenfold.contracts.identity import find_tenant


class PayloadStoreError(Exception):
    """A store cannot be written or read at the moment; a retry may succeed. The message states the reason."""


# Metadata key of a placeholder for a missing or changed payload; its value is the payload's name in the store.
LOST = "sevenfold-lost"


def lost_payload(name: str) -> Payload:
    """Returns the placeholder of a payload that is permanently lost. The converter raises on it, so that its run ends
    instead of retrying forever.
    """
    return Payload(metadata={"encoding": b"json/plain", LOST: name.encode()}, data=b"null")


def resolve_target(context: StorageDriverStoreContext) -> StorageDriverStoreContext:
    """Returns the context with the workflow that the payload belongs to.

    An activity that sends heartbeats by its task token, or encodes its result itself, has a context without a target;
    its own workflow is the target then.
    """
    if context.target is not None or not activity.in_activity():
        return context
    info = activity.info()
    return StorageDriverStoreContext(
        target=StorageDriverWorkflowInfo(
            namespace=info.namespace, id=info.workflow_id, run_id=info.workflow_run_id, type=info.workflow_type
        )
    )


# Returns the lineage of the API key that started the workflow of this id; None if no key did, or if it is unknown.
FindKey = Callable[[str], str | None]


def no_key(workflow_id: str) -> None:
    """No workflow belongs to a key."""


@dataclass(frozen=True)
class PayloadOwner:
    """Whose payload it is: a tenant's, and the lineage of the key that started its run; None without a key."""

    tenant: str
    key: str | None = None


def find_owner(context: StorageDriverStoreContext, find_key: FindKey) -> PayloadOwner | None:
    """Returns the owner of the workflow that the payload belongs to; None if there is no workflow, or if it belongs
    to no tenant.
    """
    target = resolve_target(context).target
    if not isinstance(target, StorageDriverWorkflowInfo) or not target.id:
        return None
    tenant = find_tenant(target.id)
    return None if tenant is None else PayloadOwner(tenant, find_key(target.id))


def expiring_stores(converter: DataConverter) -> list["ExpiringPayloads"]:
    """Returns the stores of a client's large payloads."""
    storage = converter.external_storage
    return [driver for driver in storage.drivers if isinstance(driver, ExpiringPayloads)] if storage else []


@runtime_checkable
class ExpiringPayloads(Protocol):
    """A store whose payloads are removed by age, and with their tenant."""

    async def remove_older_than(self, age: timedelta, namespace: str) -> int:
        """Removes payloads of the namespace that were not stored for `age`; returns their number."""
        ...

    async def remove_tenant(self, tenant: str, namespace: str) -> int:
        """Removes all payloads of a tenant in the namespace; returns their number."""
        ...

    async def check_writable(self) -> None:
        """Raises PayloadStoreError if nothing can be stored at the moment."""
        ...

    async def measure(self, owner: PayloadOwner, namespace: str) -> int:
        """Returns the bytes of the payloads of a tenant, or of one of its keys, in the namespace. Raises
        PayloadStoreError.
        """
        ...
