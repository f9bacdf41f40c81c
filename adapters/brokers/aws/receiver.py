"""Receives the messages of one SQS queue."""

import asyncio
from typing import TYPE_CHECKING

import structlog
from botocore.exceptions import BotoCoreError, ClientError

from sevenfold.adapters.brokers.aws.envelopes import open_message
from sevenfold.adapters.brokers.aws.queues import EntryError, Queue, ReceivedMessages
from sevenfold.adapters.brokers.message import BrokerMessage, MessageHandler, UnpublishableError
from sevenfold.contracts.config.brokers import ConsumeConfig

if TYPE_CHECKING:
    from types_aiobotocore_sqs.client import SQSClient
    from types_aiobotocore_sqs.type_defs import MessageTypeDef

log = structlog.get_logger(__name__)

_LONG_POLL_SECONDS = 20
_MAX_MESSAGES = 10

# How long giving back held messages may take at the end; otherwise they are back when they are no longer hidden.
_RELEASE_SECONDS = 3.0


class QueueReceiver:
    """Hands on the messages of one queue, in the order in which they come, at most `concurrency` at a time. What is
    not acknowledged when it stops is given back to the queue at once.
    """

    def __init__(self, sqs: "SQSClient", queue: Queue, one: ConsumeConfig, on_message: MessageHandler) -> None:
        self._sqs = sqs
        self._queue = queue
        self._consume = one
        self._on_message = on_message
        self._received = ReceivedMessages(sqs, queue.url)
        self._held: dict[asyncio.Task[None], str] = {}  # receipts by task

    async def run(self) -> None:
        """Receives until it is cancelled. Raises what AWS's client raises."""
        try:
            while True:
                room = await self._wait_for_room()
                response = await self._sqs.receive_message(
                    QueueUrl=self._queue.url,
                    MaxNumberOfMessages=min(room, _MAX_MESSAGES),
                    WaitTimeSeconds=_LONG_POLL_SECONDS,
                    VisibilityTimeout=self._queue.hidden_seconds,
                    MessageAttributeNames=["All"],
                    MessageSystemAttributeNames=["All"],
                )
                for raw in response.get("Messages", []):
                    self._held[asyncio.create_task(self._handle(raw))] = raw["ReceiptHandle"]
        finally:
            await self._release()
            await self._received.aclose()

    async def _wait_for_room(self) -> int:
        while True:
            self._held = {task: receipt for task, receipt in self._held.items() if not task.done()}
            if room := self._consume.concurrency - len(self._held):
                return room
            await asyncio.wait(self._held, return_when=asyncio.FIRST_COMPLETED)

    async def _handle(self, raw: "MessageTypeDef") -> None:
        try:
            await self._on_message(self._to_message(raw))
        except (ClientError, BotoCoreError, EntryError, UnpublishableError) as error:
            log.warning("a message was not deleted and comes again", queue=self._queue.name, error=str(error))
        except Exception:
            log.exception("a message could not be handled and comes again", queue=self._queue.name)

    def _to_message(self, raw: "MessageTypeDef") -> BrokerMessage:
        receipt, system = raw["ReceiptHandle"], raw.get("Attributes", {})
        content = open_message(raw, self._queue.name, dedup_by_group=self._queue.dedup_by_group)
        return BrokerMessage(
            source=self._consume,
            place=content.place,
            headers=content.headers,
            content_type=content.content_type,
            body=content.body,
            ack=lambda: self._received.delete(receipt),
            keep_alive=lambda: self._received.hide(receipt, self._queue.hidden_seconds),
            keep_alive_seconds=self._queue.hidden_seconds / 3,
            partition_key=system.get("MessageGroupId"),
            delivery_count=int(system.get("ApproximateReceiveCount", "1")),
        )

    async def _release(self) -> None:
        """Gives back what is held; the first received comes first again."""
        held = {task: receipt for task, receipt in self._held.items() if not task.done()}
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                results = await asyncio.gather(
                    *(self._received.hide(receipt, 0) for receipt in held.values()), return_exceptions=True
                )
        except TimeoutError:
            results = [TimeoutError("no answer")]
        if failed := [str(one) for one in results if isinstance(one, Exception)]:
            log.warning("messages were not given back", queue=self._queue.name, count=len(failed), error=failed[0])
