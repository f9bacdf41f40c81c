"""The stored webhook endpoints that a process knows, at most half a second old."""

from collections.abc import Mapping
from functools import partial

from temporalio.client import Client

from sevenfold.adapters.temporal.entity_memos import load_records
from sevenfold.adapters.temporal.shared_answers import SharedAnswers
from sevenfold.contracts.webhooks.endpoints import ENDPOINT_MEMO_PREFIX, WebhookEndpoint, endpoints_workflow_id

_TTL_SECONDS = 0.5


class EndpointDirectory:
    """Reads the memos of `WebhookEndpoints`. Without requests, nothing is read."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._cache = SharedAnswers(_TTL_SECONDS)

    async def list_for(self, tenant: str) -> Mapping[str, WebhookEndpoint]:
        """Returns a tenant's endpoints by id, at most 0.5 s old. Raises RPCError if Temporal is down."""
        return await self._cache.get(tenant, partial(self._read, tenant))

    async def load(self, tenant: str) -> Mapping[str, WebhookEndpoint]:
        """Returns the endpoints as they are now, by id."""
        return await self._cache.refresh(tenant, partial(self._read, tenant))

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

    async def _read(self, tenant: str) -> Mapping[str, WebhookEndpoint]:
        records = await load_records(
            self._client, endpoints_workflow_id(tenant), ENDPOINT_MEMO_PREFIX, WebhookEndpoint
        )
        return {one.id: one for one in records}


def _find_name(endpoints: Mapping[str, WebhookEndpoint], name: str) -> WebhookEndpoint | None:
    return next((one for one in endpoints.values() if one.name == name), None)
