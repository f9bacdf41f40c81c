"""`POST /patterns/recommend`: which pattern fits a use case."""

from typing import Annotated

from fastapi import APIRouter, Query

from sevenfold.adapters.temporal.durations import TaskKind
from sevenfold.api.dependencies import API_PREFIX, ClientDep, TenantDep
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.operations.statistics_reader import requests_per_minute
from sevenfold.api.runs.dependencies import AgentsDep, DurationsDep
from sevenfold.contracts.agents.interface import AgentName
from sevenfold.contracts.runs.recommendation import Recommendation, Situation, recommend
from sevenfold.contracts.runs.requests import TaskName

router = APIRouter(prefix=API_PREFIX, tags=["recommendations"], route_class=StrictJsonRoute)


@router.post(
    "/patterns/recommend", operation_id="recommendPattern", summary="Recommend a pattern", responses=PROBLEMS
)
async def recommend_pattern(
    body: Situation,
    client: ClientDep,
    agents: AgentsDep,
    durations: DurationsDep,
    tenant: TenantDep,
    agent: Annotated[
        AgentName | None, Query(description="An agent whose measured durations and traffic fill in missing fields.")
    ] = None,
    task: Annotated[TaskName | None, Query(description="A task of that agent.")] = None,
) -> Recommendation:
    """Applies the article's five questions, each optional. With `agent`, missing durations and traffic are measured
    from its recent runs.
    """
    if agent is None:
        return recommend(body)
    kind = TaskKind(tenant, agents.resolve(tenant, agent), task or "query")
    stats = await durations.get_stats(kind)
    found = {
        "duration_seconds": stats.run_seconds,
        "requests_per_minute": await requests_per_minute(client, kind),
    }
    given = body.model_dump(exclude_none=True)
    return recommend(Situation(**{**{k: v for k, v in found.items() if v is not None}, **given}))
