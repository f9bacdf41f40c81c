"""How to choose: `POST /patterns/recommend`."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.durations import Work
from api.gateway import API_PREFIX, GatewayDep, TenantDep
from api.problem_docs import PROBLEMS
from api.starting import known_agent
from api.statistics import requests_a_minute
from api.strict_json import StrictJsonRoute
from contracts.agent import AgentName
from contracts.recommendation import Recommendation, Situation, recommend
from contracts.requests import TaskName

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
    work = Work(tenant, known_agent(gateway, agent), task or "query")
    measured = await gateway.durations.of(work)
    found = {"duration_seconds": measured.run, "requests_per_minute": await requests_a_minute(gateway.client, work)}
    said = body.model_dump(exclude_none=True)
    return recommend(Situation(**{**{k: v for k, v in found.items() if v is not None}, **said}))
