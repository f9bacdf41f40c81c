"""The stored webhook endpoints that a process knows, at most half a second old."""

import asyncio
import time
from collections.abc import Mapping
from functools import partial

import structlog
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.encryption.key_ring import DecryptionError
from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.adapters.temporal.encoded import memo_names
from sevenfold.contracts.webhook_endpoints import ENDPOINT_MEMO_PREFIX, WebhookEndpoint, endpoints_workflow_id

log = structlog.get_logger(__name__)

_TTL_SECONDS = 0.5


class EndpointDirectory:
    """Reads the memos of `WebhookEndpoints`, which needs no worker. Without requests, nothing is read."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._cache: dict[str, tuple[float, Mapping[str, WebhookEndpoint]]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def list_for(self, tenant: str) -> Mapping[str, WebhookEndpoint]:
        """Returns a tenant's endpoints by id, at most 0.5 s old. Raises RPCError if Temporal is down."""
        async with self._locks.setdefault(tenant, asyncio.Lock()):
            read_at, endpoints = self._cache.get(tenant, (-_TTL_SECONDS, {}))
            if time.monotonic() - read_at < _TTL_SECONDS:
                return endpoints
            return await self.load(tenant)

    async def find(self, tenant: str, endpoint_id: str) -> WebhookEndpoint | None:
        """Returns an endpoint as `list_for` does."""
        return (await self.list_for(tenant)).get(endpoint_id)

    async def find_named(self, tenant: str, name: str) -> WebhookEndpoint | None:
        """Returns the endpoint with this name, also if it was created a moment ago."""
        found = _find_name(await self.list_for(tenant), name)
        return found or _find_name(await self.load(tenant), name)

    async def find_default(self, tenant: str) -> WebhookEndpoint | None:
        """Returns the tenant's default endpoint, if one is marked so."""
        return next((one for one in (await self.list_for(tenant)).values() if one.is_default), None)

    async def load(self, tenant: str) -> Mapping[str, WebhookEndpoint]:
        """Returns the endpoints as they are now, by id."""
        started_at = time.monotonic()
        endpoints = await self._read(tenant)
        self._cache[tenant] = (started_at, endpoints)
        return endpoints

    async def _read(self, tenant: str) -> Mapping[str, WebhookEndpoint]:
        try:
            description = await self._client.get_workflow_handle(endpoints_workflow_id(tenant)).describe()
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            return {}
        if description.status is not WorkflowExecutionStatus.RUNNING:
            return {}
        names = [name for name in memo_names(description) if name.startswith(ENDPOINT_MEMO_PREFIX)]
        found = await gather_bounded(partial(_decode, description), names)
        return {one.id: one for one in found if one is not None}


def _find_name(endpoints: Mapping[str, WebhookEndpoint], name: str) -> WebhookEndpoint | None:
    return next((one for one in endpoints.values() if one.name == name), None)


async def _decode(description: WorkflowExecutionDescription, memo: str) -> WebhookEndpoint | None:
    """Returns an endpoint; None if it was removed or cannot be decoded, which must not affect the others.

    Raises DecryptionError if its key is missing here: without it, deliveries would become dead letters.
    """
    try:
        return await description.memo_value(memo, None, type_hint=WebhookEndpoint)
    except DecryptionError:
        raise
    except Exception as error:
        log.error("a webhook endpoint cannot be decoded and is ignored", memo=memo, error=type(error).__name__)
        return None
