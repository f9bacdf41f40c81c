"""`GET /stats`: figures by pattern, agent and task, of task queues and of webhooks."""

from typing import Annotated

from fastapi import APIRouter, Query

from sevenfold.api.dependencies import API_PREFIX, ListedTenantDep, PrincipalDep
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.operations.dependencies import StatisticsReaderDep
from sevenfold.api.operations.statistics_reader import Stats

router = APIRouter(prefix=API_PREFIX, tags=["runs"], route_class=StrictJsonRoute)


@router.get("/stats", operation_id="getStatistics", summary="Read statistics", responses=PROBLEMS)
async def read_statistics(
    reader: StatisticsReaderDep,
    tenant: ListedTenantDep,
    principal: PrincipalDep,
    hours: Annotated[int, Query(ge=1, le=720, description="The period, in hours before now.")] = 24,
) -> Stats:
    """Returns what Temporal's visibility and task queues know, up to a second late."""
    return await reader.load(tenant, hours, with_queues=principal.is_admin)
