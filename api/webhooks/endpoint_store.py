"""Changes stored endpoints, by updates of the workflow `WebhookEndpoints`."""

import re
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.client import Client, WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.encryption.sealing import Sealer, SealError
from sevenfold.adapters.temporal.updates import await_update
from sevenfold.adapters.webhooks.sealed_urls import redact_url, seal_url, unseal_url
from sevenfold.adapters.webhooks.signatures import generate_secret
from sevenfold.api.http.problems import ProblemError, ProblemType, invalid_field, not_found
from sevenfold.api.webhooks.endpoint_views import EndpointChange, EndpointRequest, EndpointView, view_endpoint
from sevenfold.api.webhooks.requests import WebhookTerms
from sevenfold.contracts import workflow_types
from sevenfold.contracts.identity import DELIVERY_PREFIX, new_id
from sevenfold.contracts.spelling import suggest
from sevenfold.contracts.webhooks.delivery import AttemptOutcome, WebhookEvent, webhook_task_queue
from sevenfold.contracts.webhooks.endpoints import (
    ENDPOINT_PREFIX,
    DisableInput,
    EditEndpointInput,
    EndpointFields,
    EndpointSecret,
    EndpointsState,
    EndpointTestInput,
    RotateInput,
    WebhookEndpoint,
    endpoint_sealing_context,
    endpoints_workflow_id,
)

_BY_HAND = "It was disabled by hand."

# Without a worker an update waits. A test waits for the receiver, too.
_CHANGE_TIMEOUT = timedelta(seconds=10)
_TEST_TIMEOUT = timedelta(seconds=60)


@dataclass(frozen=True)
class EndpointStore:
    """Reads and changes a tenant's endpoints. `list_agents` returns the names of those that a tenant may use."""

    client: Client
    task_queue: str
    webhooks: WebhookTerms
    list_agents: Callable[[str], Collection[str]]

    async def list_all(self, tenant: str) -> list[WebhookEndpoint]:
        """Returns the endpoints as they are now, by name."""
        return sorted((await self.webhooks.endpoints.load(tenant)).values(), key=lambda one: one.name)

    async def find(self, tenant: str, endpoint_id: str) -> WebhookEndpoint:
        """Returns an endpoint as it is now. Raises 404 if there is none with this id."""
        found = (await self.webhooks.endpoints.load(tenant)).get(endpoint_id)
        if found is None:
            raise not_found("This endpoint")
        return found

    async def create(self, tenant: str, body: EndpointRequest) -> tuple[WebhookEndpoint, str]:
        """Stores an endpoint; returns it with its secret. Raises 409 if the name exists, and 422 as `edit` does."""
        sealer = self._require_sealer()
        endpoint_id, secret = new_id(ENDPOINT_PREFIX), generate_secret()
        host = self.webhooks.url_policy.check(body.url, "/url")
        fields = EndpointFields(
            name=body.name or _build_name(host, endpoint_id),
            sealed_url=_seal_url(sealer, tenant, endpoint_id, body.url),
            host=host,
            events=_in_order(body.events),
            agents=self._check_agents(tenant, body.agents),
            is_default=body.is_default,
        )
        endpoint = WebhookEndpoint(
            **dict(fields),
            id=endpoint_id,
            created_at=datetime.now(UTC),
            secrets=[EndpointSecret(sealed=_seal(sealer, tenant, endpoint_id, secret))],
        )
        start: WithStartWorkflowOperation[Any, None] = WithStartWorkflowOperation(
            workflow_types.WEBHOOK_ENDPOINTS,
            EndpointsState(),
            id=endpoints_workflow_id(tenant),
            task_queue=webhook_task_queue(self.task_queue),
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary="webhook endpoints",
        )
        update = self.client.execute_update_with_start_workflow("create", endpoint, start_workflow_operation=start)
        await await_update(update, _CHANGE_TIMEOUT)
        return await self.find(tenant, endpoint_id), secret

    async def edit(self, tenant: str, endpoint_id: str, change: EndpointChange) -> WebhookEndpoint:
        """Changes what the request names. Raises 404, 409 if the new name exists, and 422 for a URL that the gateway
        must not call or an agent that does not exist.
        """
        found = await self.find(tenant, endpoint_id)
        given: dict[str, Any] = {name: getattr(change, name) for name in change.model_fields_set}
        for name in given.keys() - {"agents"}:
            if given[name] is None:
                raise invalid_field(f"/{_ALIASES.get(name, name)}", "must not be null. Leave it out to keep it.")
        if (url := given.pop("url", None)) is not None:
            given["host"] = self.webhooks.url_policy.check(url, "/url")
            given["sealed_url"] = _seal_url(self._require_sealer(), tenant, endpoint_id, url)
        if "events" in given:
            given["events"] = _in_order(given["events"])
        self._check_agents(tenant, given.get("agents"))
        fields = EndpointFields(**{name: getattr(found, name) for name in EndpointFields.model_fields} | given)
        await self._update(tenant, "edit", EditEndpointInput(id=endpoint_id, fields=fields, changed=sorted(given)))
        return await self.find(tenant, endpoint_id)

    def view(self, tenant: str, endpoint: WebhookEndpoint) -> EndpointView:
        """Returns an endpoint as the API shows it: of its URL without the query, and of one that cannot be unsealed
        here, the host only.
        """
        url, sealer = f"https://{endpoint.host}/***", self.webhooks.sealer
        if sealer is not None:
            with suppress(SealError):
                owner = endpoint_sealing_context(tenant, endpoint.id)
                url = redact_url(unseal_url(sealer, endpoint.sealed_url, owner=owner))
        return view_endpoint(endpoint, url)

    async def rotate(self, tenant: str, endpoint_id: str, overlap_seconds: float) -> tuple[WebhookEndpoint, str]:
        """Returns the endpoint with its new secret; the present one signs too for the overlap. Raises 404."""
        secret = generate_secret()
        sealed = _seal(self._require_sealer(), tenant, endpoint_id, secret)
        change = RotateInput(id=endpoint_id, sealed=sealed, overlap_seconds=overlap_seconds)
        await self._update(tenant, "rotate", change)
        return await self.find(tenant, endpoint_id), secret

    async def disable(self, tenant: str, endpoint_id: str) -> WebhookEndpoint:
        """Raises 404."""
        await self._update(tenant, "disable", DisableInput(id=endpoint_id, reason=_BY_HAND))
        return await self.find(tenant, endpoint_id)

    async def enable(self, tenant: str, endpoint_id: str) -> WebhookEndpoint:
        """Raises 404."""
        await self._update(tenant, "enable", endpoint_id)
        return await self.find(tenant, endpoint_id)

    async def remove(self, tenant: str, endpoint_id: str) -> None:
        """Raises 404."""
        await self._update(tenant, "remove", endpoint_id)
        await self.webhooks.endpoints.load(tenant)

    async def test(self, tenant: str, endpoint_id: str) -> tuple[str, AttemptOutcome]:
        """Has a worker post a sample; returns its `webhook-id`, and the receiver's answer. Raises 404."""
        change = EndpointTestInput(tenant=tenant, id=endpoint_id, webhook_id=new_id(DELIVERY_PREFIX))
        outcome = await self._update(tenant, "test", change, result_type=AttemptOutcome, timeout=_TEST_TIMEOUT)
        await self.webhooks.endpoints.load(tenant)
        return change.webhook_id, outcome

    async def _update(
        self,
        tenant: str,
        update: str,
        change: object,
        *,
        result_type: type | None = None,
        timeout: timedelta = _CHANGE_TIMEOUT,
    ) -> Any:
        handle = self.client.get_workflow_handle(endpoints_workflow_id(tenant))
        try:
            return await await_update(handle.execute_update(update, change, result_type=result_type), timeout)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            raise not_found("This endpoint") from None

    def _require_sealer(self) -> Sealer:
        if self.webhooks.sealer is None:
            raise ProblemError(
                ProblemType.ENDPOINTS_UNAVAILABLE,
                "The gateway has no key to seal the endpoint's secret with. Its operator has to set "
                "SEVENFOLD_SECRET_KEY.",
            )
        return self.webhooks.sealer

    def _check_agents(self, tenant: str, agents: Sequence[str] | None) -> list[str] | None:
        names = self.list_agents(tenant)
        for position, name in enumerate(agents or ()):
            if name not in names:
                there_are = ", ".join(sorted(names)) or "none"
                detail = f"there is no agent {name}{suggest(name, names)}; there are: {there_are}"
                raise invalid_field(f"/agents/{position}", detail)
        return None if agents is None else list(agents)


_ALIASES = {"is_default": "isDefault"}


def _build_name(host: str, endpoint_id: str) -> str:
    """Returns a name that no other endpoint has, such as `crm.example.com-3f9c2a`."""
    label = re.sub(r"[^a-z0-9.-]", "-", host.lower()).strip("-.")[:50]
    return f"{label or 'endpoint'}-{endpoint_id[-6:]}"


def _seal_url(sealer: Sealer, tenant: str, endpoint_id: str, url: str) -> str:
    return seal_url(sealer, url, owner=endpoint_sealing_context(tenant, endpoint_id))


def _seal(sealer: Sealer, tenant: str, endpoint_id: str, secret: str) -> str:
    return sealer.seal(secret, context=endpoint_sealing_context(tenant, endpoint_id))


def _in_order(events: Collection[WebhookEvent]) -> list[WebhookEvent]:
    return [event for event in WebhookEvent if event in events]
