"""`/admin/tenants/{tenant}/keys`: list, create, rotate and revoke API keys."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import Field

from sevenfold.api.access.store import KeyTerms, TenantStoreDep
from sevenfold.api.access.tenants import TenantPath, check_prices
from sevenfold.api.access.views import KeyView, NewKeyView, view_key
from sevenfold.api.dependencies import API_PREFIX
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.problems import invalid_field
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.http.time_params import UtcTime
from sevenfold.api.runs.dependencies import AgentsDep
from sevenfold.contracts.access.api_keys import KeyId
from sevenfold.contracts.access.principals import NAME_PATTERN, Scope
from sevenfold.contracts.access.quotas import ADMIN_BUDGET, QuotaFields, Quotas
from sevenfold.contracts.access.tenant_registry import KeyRecord
from sevenfold.contracts.payload import Payload, RequestBody

router = APIRouter(
    prefix=f"{API_PREFIX}/admin/tenants/{{tenant}}", tags=["administration"], route_class=StrictJsonRoute
)

_DAY = 86_400

KeyPath = Annotated[KeyId, Path(description="The key's id: the part of the key between its first two underscores.")]


class KeyRequest(RequestBody, QuotaFields):
    """Body of `POST …/keys`: what the key may do, its end and its quotas."""

    scopes: frozenset[Scope] = Field(min_length=1, description="What the key may do. `admin` includes all others.")
    name: str = Field(default="", max_length=100, pattern=NAME_PATTERN, description="What the key is for.")
    expires_at: UtcTime | None = Field(default=None, description="RFC 3339; the key does not expire if absent.")


class QuotaRequest(RequestBody, QuotaFields):
    """Body of `PATCH …/keys/{id}`."""


class RotateRequest(RequestBody):
    """Body of `POST …/keys/{id}/rotate`."""

    overlap_seconds: int = Field(
        default=_DAY, ge=0, le=90 * _DAY, description="How long the old key works beside the new one."
    )


class KeyList(Payload):
    """A tenant's keys, by id."""

    items: list[KeyView]


@router.get("/keys", operation_id="listKeys", summary="List keys", responses=PROBLEMS)
async def list_keys(tenant: TenantPath, store: TenantStoreDep) -> KeyList:
    """Returns the tenant's keys, also those that have expired. No secret is stored."""
    snapshot, _ = await store.find_tenant(tenant)
    return KeyList(items=[view_key(snapshot, key) for key in snapshot.list_keys(tenant)])


@router.post("/keys", operation_id="createKey", summary="Create a key", status_code=201, responses=PROBLEMS)
async def create_key(
    tenant: TenantPath, body: KeyRequest, store: TenantStoreDep, agents: AgentsDep, response: Response
) -> NewKeyView:
    """Creates a key. This answer alone has it: keep it. It works in every process within a second."""
    if body.expires_at is not None and body.expires_at <= datetime.now(UTC):
        raise invalid_field("/expiresAt", "must be in the future")
    _check_budget(body, body.scopes)
    check_prices(body, agents)
    terms = KeyTerms(sorted(body.scopes), body.name, body.build_quotas(), body.expires_at)
    snapshot, record, new = await store.create_key(tenant, terms)
    response.headers["Cache-Control"] = "no-store"
    return NewKeyView(**dict(view_key(snapshot, record)), key=new.text)


@router.post(
    "/keys/{key_id}/rotate", operation_id="rotateKey", summary="Rotate a key", status_code=201, responses=PROBLEMS
)
async def rotate_key(
    tenant: TenantPath, key_id: KeyPath, body: RotateRequest, store: TenantStoreDep, response: Response
) -> NewKeyView:
    """Creates a key with the same scopes and quotas. The old one expires after `overlapSeconds`, and cannot be
    rotated again.
    """
    snapshot, record, new = await store.rotate_key(tenant, key_id, body.overlap_seconds)
    response.headers["Cache-Control"] = "no-store"
    return NewKeyView(**dict(view_key(snapshot, record)), key=new.text)


@router.patch("/keys/{key_id}", operation_id="limitKey", summary="Change a key's quotas", responses=PROBLEMS)
async def limit_key(
    tenant: TenantPath, key_id: KeyPath, body: QuotaRequest, store: TenantStoreDep, agents: AgentsDep
) -> KeyView:
    """Changes the quotas that the body names; null removes a limit. It acts in every process within a second."""
    check_prices(body, agents)
    named = body.build_quotas()

    def change(key: KeyRecord) -> Quotas:
        _check_budget(body, key.scopes)
        return key.quotas.model_copy(update={name: getattr(named, name) for name in body.model_fields_set})

    return view_key(*await store.limit_key(tenant, key_id, change))


@router.delete(
    "/keys/{key_id}",
    operation_id="revokeKey",
    summary="Revoke a key",
    status_code=204,
    response_class=Response,
    responses=PROBLEMS,
)
async def revoke_key(tenant: TenantPath, key_id: KeyPath, store: TenantStoreDep) -> None:
    """Revokes the key in every process within a second. Streams that are open with it, or with a run token that it
    issued, end within 5 s.
    """
    await store.revoke_key(tenant, key_id)


def _check_budget(quotas: QuotaFields, scopes: Collection[Scope]) -> None:
    if quotas.budget is not None and Scope.ADMIN in scopes:
        raise invalid_field("/budget", ADMIN_BUDGET)
