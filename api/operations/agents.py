"""`GET /agents`: the configured agents and their health."""

from fastapi import APIRouter

from sevenfold.api.dependencies import API_PREFIX, ListedTenantDep
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.operations.agent_overview import AgentView
from sevenfold.api.operations.dependencies import AgentOverviewDep
from sevenfold.contracts.payload import Payload

router = APIRouter(prefix=API_PREFIX, tags=["agents"], route_class=StrictJsonRoute)


class AgentList(Payload):
    """All agents, by name."""

    items: list[AgentView]


@router.get("/agents", operation_id="listAgents", summary="List agents", responses=PROBLEMS)
async def list_agents(overview: AgentOverviewDep, tenant: ListedTenantDep) -> AgentList:
    """Returns the configured agents with their circuit breakers and figures of recent runs, up to a second late."""
    return AgentList(items=await overview.list_agents(tenant))
