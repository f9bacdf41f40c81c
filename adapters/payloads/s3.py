"""Large payloads in an S3 bucket, by Temporal's own driver. Imported only if a bucket is configured."""

import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from aioboto3 import Session
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError
from temporalio.api.common.v1 import Payload
from temporalio.contrib.aws.s3driver import S3StorageDriver, S3StorageDriverClient
from temporalio.contrib.aws.s3driver.aioboto3 import new_aioboto3_client
from temporalio.converter import (
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
    StorageDriverWorkflowInfo,
)
from types_aiobotocore_s3.client import S3Client

from sevenfold.adapters.metrics.streams import count_payload_error, count_payloads
from sevenfold.adapters.payloads.stores import (
    FindKey,
    PayloadOwner,
    PayloadStoreError,
    find_owner,
    lost_payload,
    no_key,
    resolve_target,
)
from sevenfold.contracts.identity import build_workflow_id
from sevenfold.contracts.runs.run import OTHER_LARGE_TYPES, WORKFLOW_TYPES

# An older object is written again. Shorter than the time that the removal adds to the retention.
_RENEW_AFTER = timedelta(hours=1)

# Short time-outs detect an endpoint that drops packets; the pool serves a whole worker.
_CONFIG = AioConfig(connect_timeout=5, read_timeout=20, retries={"mode": "standard"}, max_pool_connections=50)

_OUR_TYPES = (*WORKFLOW_TYPES.values(), *OTHER_LARGE_TYPES)

# How the driver writes an unknown workflow type.
_NO_TYPE = "null"

# The end of every key that the driver writes.
_DIGEST = re.compile(r"/d/sha256/[0-9a-f]{64}$")


class BucketError(Exception):
    """The bucket is missing, unreachable or not accessible. The message states the reason."""


class _RenewingClient(S3StorageDriverClient):
    """Temporal's client, which also rewrites objects older than `renew_after`.

    The removal counts from the last write. An Idempotency-Key that is reused after the retention leads to the same
    object, which would otherwise be removed while its new run needs it.
    """

    def __init__(self, s3: S3Client, renew_after: timedelta) -> None:
        self._s3 = s3
        self._client = new_aioboto3_client(s3)
        self._renew_after = renew_after

    async def object_exists(self, *, bucket: str, key: str) -> bool:
        """Whether the object needs no write: a recent object is not sent again with every heartbeat."""
        try:
            found = await self._s3.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if _status(error) == 404:
                return False
            raise
        return datetime.now(UTC) - found["LastModified"] < self._renew_after

    async def put_object(self, *, bucket: str, key: str, data: bytes) -> None:
        """Writes the object atomically; old and new content are equal."""
        await self._client.put_object(bucket=bucket, key=key, data=data)
        count_payloads("s3", "store", len(data))

    async def get_object(self, *, bucket: str, key: str) -> bytes:
        """Reads the object; the driver verifies the SHA-256."""
        return await self._client.get_object(bucket=bucket, key=key)

    def describe(self) -> Mapping[str, str]:
        """Details that the driver adds to its errors."""
        return self._client.describe()


class PayloadBucket(S3StorageDriver):
    """Temporal's driver, which also removes its objects by age."""

    def __init__(self, s3: S3Client, bucket: str, renew_after: timedelta, find_key: FindKey) -> None:
        # Unlimited: the API limits requests, and an answer that was refused here would block its workflow task
        # forever.
        super().__init__(_RenewingClient(s3, renew_after), bucket, max_payload_size=sys.maxsize)
        self._s3 = s3
        self._name = bucket
        self._find_key = find_key

    async def store(
        self, context: StorageDriverStoreContext, payloads: Sequence[Payload]
    ) -> list[StorageDriverClaim]:
        """Writes the payloads. Raises PayloadStoreError."""
        try:
            return await super().store(self._name_owner(context), payloads)
        except RuntimeError as error:
            count_payload_error("s3", "store")
            raise PayloadStoreError(str(error.__cause__ or error)) from error

    def _name_owner(self, context: StorageDriverStoreContext) -> StorageDriverStoreContext:
        """Returns the context with the key that started the run in the workflow's id, and so in the object's key."""
        context = resolve_target(context)
        owner = find_owner(context, self._find_key)
        if owner is None or owner.key is None or not isinstance(context.target, StorageDriverWorkflowInfo):
            return context
        public_id = (context.target.id or "").removeprefix(build_workflow_id(owner.tenant, ""))
        return replace(context, target=replace(context.target, id=_id_prefix(owner) + public_id))

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        """Reads the payloads; a missing or changed one is returned as `lost_payload`. Raises PayloadStoreError."""
        try:
            found = [await self._payload(context, claim) for claim in claims]
        except PayloadStoreError:
            count_payload_error("s3", "read")
            raise
        count_payloads("s3", "read", sum(payload.ByteSize() for payload in found))
        return found

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
        """Removes the namespace's expired payloads of our workflow types, and nothing else in the bucket.

        Each page of the list is handled at once, so that a payload stored again meanwhile has its new time.
        """
        limit = datetime.now(UTC) - age
        return sum(
            [
                await self._remove_below(f"v0/ns/{_segment(namespace)}/wt/{workflow_type}/", limit)
                for workflow_type in _OUR_TYPES
            ]
        )

    async def remove_tenant(self, tenant: str, namespace: str) -> int:
        """Removes all payloads of a tenant's workflows in the namespace; returns their number.

        Their keys begin with the namespace, the workflow type and the workflow id, which begins with the tenant. A
        signal's payload has no type.
        """
        return sum([await self._remove_below(prefix, None) for prefix in _prefixes(PayloadOwner(tenant), namespace)])

    async def check_writable(self) -> None:
        """Raises PayloadStoreError if the bucket does not answer."""
        try:
            await self._s3.head_bucket(Bucket=self._name)
        except (BotoCoreError, ClientError) as error:
            raise PayloadStoreError(f"the payload bucket does not answer: {_reason(error)}") from error

    async def measure(self, owner: PayloadOwner, namespace: str) -> int:
        """Returns the bytes of the payloads of a tenant with all its keys, or of one key, in the namespace. Raises
        PayloadStoreError.
        """
        try:
            return sum([await self._measure_below(prefix) for prefix in _prefixes(owner, namespace)])
        except (BotoCoreError, ClientError) as error:
            raise PayloadStoreError(_reason(error)) from error

    async def _measure_below(self, prefix: str) -> int:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=prefix)
        return sum([found["Size"] async for page in pages for found in page.get("Contents", [])])

    async def _remove_below(self, prefix: str, before: datetime | None) -> int:
        removed = 0
        pages = self._s3.get_paginator("list_objects_v2")
        async for page in pages.paginate(Bucket=self._name, Prefix=prefix):
            for found in page.get("Contents", []):
                if (before is None or found["LastModified"] < before) and _DIGEST.search(found["Key"]):
                    await self._s3.delete_object(Bucket=self._name, Key=found["Key"])
                    removed += 1
        return removed


@asynccontextmanager
async def open_bucket(
    bucket: str, find_key: FindKey = no_key, *, renew_after: timedelta = _RENEW_AFTER
) -> AsyncIterator[PayloadBucket]:
    """The driver over a bucket that has answered, while the block runs.

    Credentials, region and endpoint come from the standard AWS environment. Raises BucketError.
    """
    async with AsyncExitStack() as stack:
        try:
            client = await stack.enter_async_context(Session().client("s3", config=_CONFIG))
            await client.head_bucket(Bucket=bucket)
        except (BotoCoreError, ClientError, ValueError) as error:  # ValueError: an endpoint that is not a URL.
            raise BucketError(_reason(error)) from None
        yield PayloadBucket(client, bucket, renew_after, find_key)


def _id_prefix(owner: PayloadOwner) -> str:
    """Returns how the workflow ids of an owner's objects begin. No public id begins with `key:`."""
    return build_workflow_id(owner.tenant, "" if owner.key is None else f"key:{owner.key}:")


def _prefixes(owner: PayloadOwner, namespace: str) -> list[str]:
    """Returns the prefixes of an owner's objects: namespace, workflow type, beginning of the workflow id."""
    return [
        f"v0/ns/{_segment(namespace)}/wt/{workflow_type}/wi/{_segment(_id_prefix(owner))}"
        for workflow_type in (*_OUR_TYPES, _NO_TYPE)
    ]


def _segment(text: str) -> str:
    """Encodes a namespace or a workflow id as the driver does in its keys."""
    return quote(text, safe="!*'()").replace("~", "%7E")


def _reason(error: Exception) -> str:
    # A HEAD response has no body, so S3 itself gives only the status.
    if isinstance(error, ClientError):
        return {
            403: "access is denied (needed: s3:ListBucket on the bucket, and s3:GetObject, "
            "s3:PutObject and s3:DeleteObject in it)",
            404: "there is no such bucket",
        }.get(_status(error), str(error))
    return str(error)


def _status(error: ClientError) -> int:
    return error.response["ResponseMetadata"]["HTTPStatusCode"]
