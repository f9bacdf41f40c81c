"""Large payloads in an S3 bucket, by Temporal's own driver. Imported only where a bucket is configured."""

import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from aioboto3 import Session
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError
from temporalio.api.common.v1 import Payload
from temporalio.contrib.aws.s3driver import S3StorageDriver, S3StorageDriverClient
from temporalio.contrib.aws.s3driver.aioboto3 import new_aioboto3_client
from temporalio.converter import StorageDriverClaim, StorageDriverRetrieveContext, StorageDriverStoreContext
from types_aiobotocore_s3.client import S3Client

from sevenfold.adapters.payloads.stores import PayloadStoreError, lost_payload
from sevenfold.contracts.runs import OTHER_LARGE_TYPES, WORKFLOW_TYPES

# How old an object may be that is not written again; of the days that removal leaves for late runs.
_RENEW_AFTER = timedelta(hours=1)

# An endpoint that swallows packets is found out within seconds; the pool is for the calls of a whole worker.
_CONFIG = AioConfig(connect_timeout=5, read_timeout=20, retries={"mode": "standard"}, max_pool_connections=50)

# How the driver ends every key.
_DIGEST = re.compile(r"/d/sha256/[0-9a-f]{64}$")


class BucketError(Exception):
    """The bucket is missing, out of reach or closed to us. The message says which."""


class _RenewingClient(S3StorageDriverClient):
    """Temporal's client, but it writes an object again that has been there for a while.

    Its age counts from the last write, and an Idempotency-Key that comes back after the retention leads to the same
    object: left as it is, it would be removed under the run that needs it now.
    """

    def __init__(self, s3: S3Client, renew_after: timedelta) -> None:
        self._s3 = s3
        self._client = new_aioboto3_client(s3)
        self._renew_after = renew_after

    async def object_exists(self, *, bucket: str, key: str) -> bool:
        """Whether it need not be written: what was just stored is not sent again with every heartbeat."""
        try:
            found = await self._s3.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if _status(error) == 404:
                return False
            raise
        return datetime.now(UTC) - found["LastModified"] < self._renew_after

    async def put_object(self, *, bucket: str, key: str, data: bytes) -> None:
        """Writes it whole; readers see the old object or the new one, and they are alike."""
        await self._client.put_object(bucket=bucket, key=key, data=data)

    async def get_object(self, *, bucket: str, key: str) -> bytes:
        """Reads it; the driver compares the SHA-256."""
        return await self._client.get_object(bucket=bucket, key=key)

    def describe(self) -> Mapping[str, str]:
        """What the driver adds to its errors."""
        return self._client.describe()


class PayloadBucket(S3StorageDriver):
    """Temporal's driver, which also removes its objects by their age."""

    def __init__(self, s3: S3Client, bucket: str, renew_after: timedelta) -> None:
        # The door limits what comes in. An answer that was refused here would block its run's task for ever.
        super().__init__(_RenewingClient(s3, renew_after), bucket, max_payload_size=sys.maxsize)
        self._s3 = s3
        self._name = bucket

    async def store(
        self, context: StorageDriverStoreContext, payloads: Sequence[Payload]
    ) -> list[StorageDriverClaim]:
        """Writes the payloads. Raises PayloadStoreError."""
        try:
            return await super().store(context, payloads)
        except RuntimeError as error:
            raise PayloadStoreError(str(error.__cause__ or error)) from error

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        """Reads them back; one that is gone or was changed as `lost_payload`. Raises PayloadStoreError."""
        return [await self._payload(context, claim) for claim in claims]

    async def _payload(self, context: StorageDriverRetrieveContext, claim: StorageDriverClaim) -> Payload:
        try:
            (payload,) = await super().retrieve(context, [claim])
        except ValueError:
            return lost_payload(str(claim.claim_data.get("key", "")))
        except RuntimeError as error:
            cause = error.__cause__ or error
            if isinstance(cause, ClientError) and _status(cause) == 404:
                return lost_payload(str(claim.claim_data.get("key", "")))
            raise PayloadStoreError(str(cause)) from error
        return payload

    async def remove_older_than(self, age: timedelta, namespace: str) -> int:
        """Removes what was stored for our workflow types in the namespace, and nothing else that lies in the bucket.

        Each page of the list is acted upon at once, so that what is stored again meanwhile is seen with its new time.
        """
        limit = datetime.now(UTC) - age
        pages = self._s3.get_paginator("list_objects_v2")
        removed = 0
        for workflow_type in (*WORKFLOW_TYPES.values(), *OTHER_LARGE_TYPES):
            prefix = f"v0/ns/{_segment(namespace)}/wt/{workflow_type}/"
            async for page in pages.paginate(Bucket=self._name, Prefix=prefix):
                for found in page.get("Contents", []):
                    if found["LastModified"] < limit and _DIGEST.search(found["Key"]):
                        await self._s3.delete_object(Bucket=self._name, Key=found["Key"])
                        removed += 1
        return removed


@asynccontextmanager
async def open_bucket(bucket: str, *, renew_after: timedelta = _RENEW_AFTER) -> AsyncIterator[PayloadBucket]:
    """The driver over a bucket that answered, for as long as the block runs.

    Credentials, region and endpoint are those of the standard AWS environment. Raises BucketError.
    """
    async with AsyncExitStack() as stack:
        try:
            client = await stack.enter_async_context(Session().client("s3", config=_CONFIG))
            await client.head_bucket(Bucket=bucket)
        except (BotoCoreError, ClientError, ValueError) as error:  # ValueError: an endpoint that is no address
            raise BucketError(_reason(error)) from None
        yield PayloadBucket(client, bucket, renew_after)


def _segment(namespace: str) -> str:
    """A name as the driver writes it into its keys."""
    return quote(namespace, safe="!*'()").replace("~", "%7E")


def _reason(error: Exception) -> str:
    # A HEAD has no body, so S3 itself says no more than the number.
    if isinstance(error, ClientError):
        return {
            403: "access is denied (needed: s3:ListBucket on the bucket, and s3:GetObject, "
            "s3:PutObject and s3:DeleteObject in it)",
            404: "there is no such bucket",
        }.get(_status(error), str(error))
    return str(error)


def _status(error: ClientError) -> int:
    return error.response["ResponseMetadata"]["HTTPStatusCode"]
