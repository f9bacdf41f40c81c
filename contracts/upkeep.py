"""What the gateway does for itself."""

from sevenfold.contracts.payload import Payload


class CleanupResult(Payload):
    """How many stored payloads were older than any run that could need them."""

    removed_payloads: int
