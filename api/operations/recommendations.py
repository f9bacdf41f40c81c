"""How to choose: `POST /patterns/recommend`."""

from typing import Annotated

from fastapi import APIRouter, Query

from sevenfold.adapters.temporal.durations import TaskKind
from sevenfold.api.dependencies import API_PREFIX, GatewayDep, TenantDep
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.operations.statistics import requests_per_minute
from sevenfold.api.runs.start import resolve_agent
from sevenfold.contracts.agent import AgentName
from sevenfold.contracts.recommendation import Recommendation, Situation, recommend
from sevenfold.contracts.requests import TaskName

router = APIRouter(prefix=API_PREFIX, tags=["recommendations"], route_class=StrictJsonRoute)


@router.post("/patterns/recommend", operation_id="recommendPattern", summary="Choose a pattern", responses=PROBLEMS)
async def recommend_pattern(
    body: Situation,
    gateway: GatewayDep,
    tenant: TenantDep,
    agent: Annotated[
        AgentName | None, Query(description="Whose real durations and traffic fill in what is open.")
    ] = None,
    task: Annotated[TaskName | None, Query(description="Of that agent.")] = None,
) -> Recommendation:
    """By the article's five questions, each optional. With `agent`, how long it takes and how often it is asked are
    read from its recent runs, unless you say.
    """
    if agent is None:
        return recommend(body)
    kind = TaskKind(tenant, resolve_agent(gateway, agent), task or "query")
    stats = await gateway.durations.get_stats(kind)
    found = {
        "duration_seconds": stats.run_seconds,
        "requests_per_minute": await requests_per_minute(gateway.client, kind),
    }
    given = body.model_dump(exclude_none=True)
    return recommend(Situation(**{**{k: v for k, v in found.items() if v is not None}, **given}))
