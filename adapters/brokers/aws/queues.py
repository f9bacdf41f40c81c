"""SQS queues: what is known of them, and batches of requests to them."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sevenfold.adapters.brokers.aws.batcher import Batcher
from sevenfold.adapters.brokers.message import UnpublishableError

if TYPE_CHECKING:
    from types_aiobotocore_sqs.client import SQSClient

# Limits of a queue's visibility time-out here, in seconds. It is extended while a message is held,
# so a longer one would only delay what a killed process held.
_MIN_HIDDEN_SECONDS, _MAX_HIDDEN_SECONDS = 6, 30

# Errors of a whole call that are the fault of an entry.
FAULTS_OF_ENTRIES = frozenset(
    {"InvalidMessageContents", "InvalidParameterValue", "MissingParameter", "BatchRequestTooLong"}
)


class EntryError(Exception):
    """AWS refused one entry of a batch, for now."""


@dataclass(frozen=True)
class Queue:
    """A queue. `max_bytes`: of a message, its attributes included. `hidden_seconds`: how long what is received stays
    hidden from others. `dedup_by_group`: a deduplication id is unique within its message group only.
    """

    name: str
    url: str
    is_fifo: bool
    max_bytes: int
    hidden_seconds: int
    dedup_by_group: bool


class Queues:
    """The queues that a connection uses, by name or URL. Looks each up once."""

    def __init__(self, sqs: "SQSClient") -> None:
        self._sqs = sqs
        self._known: dict[str, Queue] = {}
        self._lock = asyncio.Lock()

    async def find(self, source: str) -> Queue:
        """Returns the queue. Raises ClientError if there is none."""
        async with self._lock:
            if source not in self._known:
                self._known[source] = await self._look_up(source)
            return self._known[source]

    async def _look_up(self, source: str) -> Queue:
        url = source if "://" in source else (await self._sqs.get_queue_url(QueueName=source))["QueueUrl"]
        found = await self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        attributes: dict[str, str] = {str(name): value for name, value in found["Attributes"].items()}
        return Queue(
            name=url.rpartition("/")[2],
            url=url,
            is_fifo=attributes.get("FifoQueue") == "true",
            max_bytes=int(attributes["MaximumMessageSize"]),
            hidden_seconds=max(_MIN_HIDDEN_SECONDS, min(_MAX_HIDDEN_SECONDS, int(attributes["VisibilityTimeout"]))),
            dedup_by_group=attributes.get("DeduplicationScope") == "messageGroup",
        )


async def call_batch(
    operation: Callable[..., Any], url: str, entries: Sequence[dict[str, Any]]
) -> list[Exception | None]:
    """Calls a batch operation of SQS; returns each entry's error, an UnpublishableError for a fault of the sender."""
    numbered = [{"Id": str(number), **entry} for number, entry in enumerate(entries)]
    response = await operation(QueueUrl=url, Entries=numbered)
    failed = {int(one["Id"]): one for one in response.get("Failed", [])}
    return [_to_error(failed[number]) if number in failed else None for number in range(len(entries))]


def _to_error(failed: dict[str, Any]) -> Exception:
    text = f"SQS: {failed.get('Code')}: {failed.get('Message', '')}"
    return UnpublishableError(text) if failed.get("SenderFault") else EntryError(text)


class ReceivedMessages:
    """Deletes one queue's received messages and changes their visibility, ten at a time."""

    def __init__(self, sqs: "SQSClient", url: str) -> None:
        self._deletions: Batcher[dict[str, Any]] = Batcher(
            lambda entries: call_batch(sqs.delete_message_batch, url, entries), FAULTS_OF_ENTRIES
        )
        self._visibilities: Batcher[dict[str, Any]] = Batcher(
            lambda entries: call_batch(sqs.change_message_visibility_batch, url, entries), FAULTS_OF_ENTRIES
        )

    async def aclose(self) -> None:
        """Waits for requests under way, and ends."""
        await asyncio.gather(self._deletions.aclose(), self._visibilities.aclose())

    async def delete(self, receipt: str) -> None:
        """Deletes a message."""
        await self._deletions.add({"ReceiptHandle": receipt})

    async def hide(self, receipt: str, seconds: int) -> None:
        """Keeps a message from other consumers for `seconds` from now; 0 gives it back."""
        await self._visibilities.add({"ReceiptHandle": receipt, "VisibilityTimeout": seconds})
