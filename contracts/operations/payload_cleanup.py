"""Result of the daily payload cleanup."""

from sevenfold.contracts.payload import Payload


class CleanupResult(Payload):
    """`removed_payloads`: stored payloads that were older than any run that could need them."""

    removed_payloads: int
