"""Large payloads in an S3 bucket, by Temporal's own driver. Imported only where a bucket is configured."""

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta

from aioboto3 import Session
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError
from temporalio.contrib.aws.s3driver import S3StorageDriver, S3StorageDriverClient
from temporalio.contrib.aws.s3driver.aioboto3 import new_aioboto3_client
from types_aiobotocore_s3.client import S3Client

# How old an object may be that is not written again; of the days that a lifecycle rule leaves for late runs.
_FRESH = timedelta(hours=1)

# An endpoint that swallows packets is found out within seconds; the pool is for the calls of a whole worker.
_CONFIG = AioConfig(connect_timeout=5, read_timeout=20, retries={"mode": "standard"}, max_pool_connections=50)


class BucketError(Exception):
    """The bucket is missing, out of reach or closed to us. The message says which."""


class _RenewingClient(S3StorageDriverClient):
    """Temporal's client, but it writes an object again that has been there for a while.

    A lifecycle rule counts from the last write, and an Idempotency-Key that comes back after the retention leads to
    the same object: left as it is, it would be removed under the run that needs it now.
    """

    def __init__(self, s3: S3Client, fresh: timedelta) -> None:
        self._s3 = s3
        self._client = new_aioboto3_client(s3)
        self._fresh = fresh

    async def object_exists(self, *, bucket: str, key: str) -> bool:
        """Whether it need not be written: what was just stored is not sent again with every heartbeat."""
        try:
            found = await self._s3.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if _status(error) == 404:
                return False
            raise
        return datetime.now(UTC) - found["LastModified"] < self._fresh

    async def put_object(self, *, bucket: str, key: str, data: bytes) -> None:
        """Writes it whole; readers see the old object or the new one, and they are alike."""
        await self._client.put_object(bucket=bucket, key=key, data=data)

    async def get_object(self, *, bucket: str, key: str) -> bytes:
        """Reads it; the driver compares the SHA-256."""
        return await self._client.get_object(bucket=bucket, key=key)

    def describe(self) -> Mapping[str, str]:
        """What the driver adds to its errors."""
        return self._client.describe()


@asynccontextmanager
async def opened_bucket(bucket: str, *, fresh: timedelta = _FRESH) -> AsyncIterator[S3StorageDriver]:
    """The driver over a bucket that answered, for as long as the block runs.

    Credentials, region and endpoint are those of the standard AWS environment. Raises BucketError.
    """
    async with AsyncExitStack() as stack:
        try:
            client = await stack.enter_async_context(Session().client("s3", config=_CONFIG))
            await client.head_bucket(Bucket=bucket)
        except (BotoCoreError, ClientError, ValueError) as error:  # ValueError: an endpoint that is no address
            raise BucketError(_reason(error)) from None
        # The door limits what comes in. An answer that was refused here would block its run's task for ever.
        yield S3StorageDriver(_RenewingClient(client, fresh), bucket, max_payload_size=sys.maxsize)


def _reason(error: Exception) -> str:
    # A HEAD has no body, so S3 itself says no more than the number.
    if isinstance(error, ClientError):
        return {
            403: "access is denied (needed: s3:ListBucket on the bucket, s3:GetObject and s3:PutObject in it)",
            404: "there is no such bucket",
        }.get(_status(error), str(error))
    return str(error)


def _status(error: ClientError) -> int:
    return error.response["ResponseMetadata"]["HTTPStatusCode"]
