"""`/admin/tenants`: list, create, change and remove tenants."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from sevenfold.api.access.erasures import ErasuresDep, ErasureView
from sevenfold.api.access.store import TenantStoreDep
from sevenfold.api.access.views import TenantView, view_tenant
from sevenfold.api.dependencies import API_PREFIX
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.problems import invalid_field
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.runs.agents import AgentCatalog
from sevenfold.api.runs.dependencies import AgentsDep
from sevenfold.contracts.access.principals import TenantName
from sevenfold.contracts.access.quotas import QuotaFields, Quotas
from sevenfold.contracts.access.tenant_registry import TenantRecord
from sevenfold.contracts.agents.interface import AgentName
from sevenfold.contracts.payload import Payload, RequestBody

router = APIRouter(prefix=f"{API_PREFIX}/admin", tags=["administration"], route_class=StrictJsonRoute)

TenantPath = Annotated[TenantName, Path(description="The tenant's name.")]


class TenantBody(RequestBody, QuotaFields):
    """Body of `PUT /admin/tenants/{tenant}`: what it may use, its weight and its quotas."""

    agents: list[AgentName] | None = Field(
        default=None, max_length=1_000, description="The agents that it may use; all if absent."
    )
    weight: float = Field(
        default=1.0,
        ge=0.001,
        le=1_000,
        strict=True,
        allow_inf_nan=False,
        description="Its share of busy task queues, compared with the other tenants' weights.",
    )


class TenantRequest(TenantBody):
    """Body of `POST /admin/tenants`."""

    name: TenantName


class TenantList(Payload):
    """All tenants, by name."""

    items: list[TenantView]


@router.get("/tenants", operation_id="listTenants", summary="List tenants", responses=PROBLEMS)
async def list_tenants(store: TenantStoreDep) -> TenantList:
    """Returns the tenants of `sevenfold.toml` and those that were created here."""
    snapshot = await store.load()
    return TenantList(items=[view_tenant(snapshot, tenant) for tenant in snapshot.list_tenants()])


@router.post("/tenants", operation_id="createTenant", summary="Create a tenant", status_code=201, responses=PROBLEMS)
async def create_tenant(
    body: TenantRequest, store: TenantStoreDep, agents: AgentsDep, response: Response
) -> TenantView:
    """Creates a tenant. It needs a key before anybody can use it."""
    tenant = _build(body.name, body, agents)
    snapshot = await store.put_tenant(tenant, create_only=True)
    response.headers["Location"] = f"{API_PREFIX}/admin/tenants/{body.name}"
    return view_tenant(snapshot, tenant)


@router.get("/tenants/{tenant}", operation_id="getTenant", summary="Read a tenant", responses=PROBLEMS)
async def read_tenant(tenant: TenantPath, store: TenantStoreDep) -> TenantView:
    """Returns the tenant."""
    return view_tenant(*await store.find_tenant(tenant))


@router.put("/tenants/{tenant}", operation_id="putTenant", summary="Change a tenant", responses=PROBLEMS)
async def put_tenant(tenant: TenantPath, body: TenantBody, store: TenantStoreDep, agents: AgentsDep) -> TenantView:
    """Replaces the tenant's agents, weight and quotas: what the body does not name is unlimited then. Runs that have
    started keep their agent.
    """
    _, before = await store.find_tenant(tenant)
    changed = _build(tenant, body, agents).model_copy(update={"created_at": before.created_at})
    return view_tenant(await store.put_tenant(changed, create_only=False), changed)


@router.patch("/tenants/{tenant}", operation_id="patchTenant", summary="Change parts of a tenant", responses=PROBLEMS)
async def patch_tenant(tenant: TenantPath, body: TenantBody, store: TenantStoreDep, agents: AgentsDep) -> TenantView:
    """Changes what the body names, such as its budget alone; null removes a limit. What it does not name stays."""
    _, before = await store.find_tenant(tenant)
    named = _build(tenant, body, agents)
    quotas = {name: getattr(named.quotas, name) for name in body.model_fields_set if name in Quotas.model_fields}
    fields = {name: getattr(named, name) for name in body.model_fields_set & {"agents", "weight"}}
    changed = before.model_copy(update={**fields, "quotas": before.quotas.model_copy(update=quotas)})
    return view_tenant(await store.put_tenant(changed, create_only=False), changed)


@router.delete(
    "/tenants/{tenant}",
    operation_id="deleteTenant",
    summary="Remove a tenant",
    status_code=204,
    response_class=Response,
    responses={**PROBLEMS, 202: {"model": ErasureView, "description": "The erasure has started, or runs already."}},
)
async def delete_tenant(
    tenant: TenantPath,
    store: TenantStoreDep,
    erasures: ErasuresDep,
    erase: Annotated[bool, Query(description="Whether the tenant's data are removed too.")] = False,
) -> Response:
    """Revokes the tenant's keys and removes it; its runs and events stay until the retention.

    With `erase=true` it answers 202, and a workflow refuses the tenant's keys, cancels its work and removes all of
    its data. `Location` has the progress. This works for tenants of `sevenfold.toml` too, whose keys there work again
    when it is done, and for tenants that were removed earlier.
    """
    if not erase:
        await store.remove_tenant(tenant)
        return Response(status_code=204)
    view = await erasures.start(tenant)
    return Response(
        view.model_dump_json(by_alias=True),
        status_code=202,
        headers={"Location": f"{API_PREFIX}/admin/tenants/{tenant}/erasure"},
        media_type="application/json",
    )


def check_prices(quotas: QuotaFields, agents: AgentCatalog) -> None:
    """Raises 422 for a budget in US dollars that can never be used up, because no agent has a price."""
    if quotas.has_usd_budget and not any(agent.price for agent in agents.configs.values()):
        raise invalid_field("/budget/usd", "no agent has a price in sevenfold.toml; use tokens")


def _build(name: str, body: TenantBody, agents: AgentCatalog) -> TenantRecord:
    for index, agent in enumerate(body.agents or []):
        if agent not in agents.configs:
            raise invalid_field(f"/agents/{index}", f"there is no agent {agent}")
    check_prices(body, agents)
    chosen = None if body.agents is None else sorted(set(body.agents))
    return TenantRecord(
        name=name, agents=chosen, weight=body.weight, quotas=body.build_quotas(), created_at=datetime.now(UTC)
    )
