"""What the stores of large payloads share beyond Temporal's driver interface."""

from datetime import timedelta
from typing import Protocol, runtime_checkable

from temporalio.api.common.v1 import Payload


class PayloadStoreError(Exception):
    """A store cannot be written or read at the moment; a retry may succeed. The message states the reason."""


# Metadata key of a placeholder for a missing or changed payload; its value is the payload's name in the store.
LOST = "sevenfold-lost"


def lost_payload(name: str) -> Payload:
    """Returns the placeholder of a payload that is permanently lost. The converter raises on it, so that its run ends
    instead of retrying forever.
    """
    return Payload(metadata={"encoding": b"json/plain", LOST: name.encode()}, data=b"null")


@runtime_checkable
class ExpiringPayloads(Protocol):
    """A store whose payloads are removed by age."""

    async def remove_older_than(self, age: timedelta, namespace: str) -> int:
        """Removes payloads of the namespace that were not stored for `age`; returns their number."""
        ...
