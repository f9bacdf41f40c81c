"""SQS messages above the queue's limit: their bodies go to an S3 bucket, and the queue gets a pointer.

The pointer is that of AWS's Extended Client Libraries, which read it in Java and Python.
"""

import hashlib
import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from sevenfold.adapters.brokers.aws.client import CONFIG, open_session

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

# A lifecycle rule of the bucket removes what begins like this: who reads the message may come days later.
KEY_PREFIX = "sqs-messages/"

_POINTER = "software.amazon.payloadoffloading.PayloadS3Pointer"
_SIZE_ATTRIBUTE = "ExtendedPayloadSize"

# SQS takes as many attributes per message.
_MAX_ATTRIBUTES = 10


class MessageBucket:
    """Stores the bodies of large messages in one bucket."""

    def __init__(self, s3: "S3Client", bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket

    @classmethod
    async def open(cls, resources: AsyncExitStack, bucket: str) -> "MessageBucket":
        """Opens the client as one of `resources`."""
        return cls(await resources.enter_async_context(open_session().client("s3", config=CONFIG)), bucket)

    async def store_body(self, entry: dict[str, Any], *identity: str) -> dict[str, Any]:
        """Returns the entry of SendMessageBatch with a pointer in place of its body, which it stores. Raises what
        AWS's client raises.

        `identity` is that of the message at its queue. Another try stores the same object, and no two messages
        share one: a reader deletes the object together with its message.
        """
        body = entry["MessageBody"].encode()
        key = f"{KEY_PREFIX}{hashlib.sha256(json.dumps(identity).encode()).hexdigest()}"
        await self._s3.put_object(Bucket=self._bucket, Key=key, Body=body)
        pointer = json.dumps([_POINTER, {"s3BucketName": self._bucket, "s3Key": key}])
        attributes = dict(list(entry["MessageAttributes"].items())[: _MAX_ATTRIBUTES - 1])
        attributes[_SIZE_ATTRIBUTE] = {"DataType": "Number", "StringValue": str(len(body))}
        return {**entry, "MessageBody": pointer, "MessageAttributes": attributes}
