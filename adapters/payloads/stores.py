"""What the stores of large payloads have in common beside Temporal's own driver interface."""

from datetime import timedelta
from typing import Protocol, runtime_checkable

from temporalio.api.common.v1 import Payload


class PayloadStoreError(Exception):
    """A store cannot be written or read at the moment. The message says why; trying again may help."""


# In the metadata of what stands in the place of a payload that is gone or was changed: its name in the store.
LOST = "sevenfold-lost"


def lost_payload(name: str) -> Payload:
    """What is read in the place of a payload that no store will ever have again. The converter refuses it, so that
    whoever needs it ends, instead of asking for ever.
    """
    return Payload(metadata={"encoding": b"json/plain", LOST: name.encode()}, data=b"null")


@runtime_checkable
class ExpiringPayloads(Protocol):
    """A store out of which payloads go by their age."""

    async def remove_older_than(self, age: timedelta, namespace: str) -> int:
        """Removes what nobody has stored for that long for runs of the namespace; how many payloads that were."""
        ...
