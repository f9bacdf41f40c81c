"""What the stores of large payloads have in common beside Temporal's own driver interface."""

from datetime import timedelta
from typing import Protocol, runtime_checkable


class PayloadStoreError(Exception):
    """A store cannot be written or read at the moment. The message says why; trying again may help."""


@runtime_checkable
class ExpiringPayloads(Protocol):
    """A store out of which payloads go by their age."""

    async def remove_older_than(self, age: timedelta, namespace: str) -> int:
        """Removes what nobody has stored for that long for runs of the namespace; how many payloads that were."""
        ...
