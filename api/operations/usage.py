"""`GET /usage`: what agents used, by day, agent and tenant."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from sevenfold.api.dependencies import API_PREFIX, ListedTenantDep, PrincipalDep
from sevenfold.api.http.content_negotiation import negotiate
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.problems import invalid_field
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.http.time_params import Day
from sevenfold.api.operations.dependencies import UsageReaderDep
from sevenfold.api.operations.usage_reader import UsageKey, UsageQuery, UsageReport, to_csv
from sevenfold.contracts.agents.interface import AgentName

router = APIRouter(prefix=API_PREFIX, tags=["runs"], route_class=StrictJsonRoute)

_JSON, _CSV = "application/json", "text/csv"
_DEFAULT_DAYS = 30


@router.get(
    "/usage",
    operation_id="getUsage",
    summary="Read the usage of agents",
    response_model=UsageReport,
    responses={200: {"model": UsageReport, "content": {_CSV: {"schema": {"type": "string"}}}}, **PROBLEMS},
)
async def read_usage(
    reader: UsageReaderDep,
    tenant: ListedTenantDep,
    principal: PrincipalDep,
    first: Annotated[Day | None, Query(alias="from", description="The first day, UTC; 29 before the last.")] = None,
    last: Annotated[Day | None, Query(alias="to", description="The last day, UTC; today if absent.")] = None,
    by: Annotated[
        list[UsageKey] | None,
        Query(max_length=3, description="What is summed up separately, day and agent if absent. Repeat it for more."),
    ] = None,
    agent: Annotated[AgentName | None, Query(description="Only this agent's.")] = None,
    accept: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Response:
    """Returns calls, tokens and cost, with today's budgets, as JSON or CSV (`Accept: text/csv`). Days are kept for
    400 days.
    """
    media_type = negotiate(accept, (_JSON, _CSV))
    today = datetime.now(UTC).date()
    last = last or today
    first = first or last - timedelta(days=min(_DEFAULT_DAYS - 1, (last - date.min).days))
    if first > last:
        raise invalid_field("query:from", f"must not be after the last day, {last}")
    query = UsageQuery(first, last, tuple(by or (UsageKey.DAY, UsageKey.AGENT)), agent)
    report = await reader.load(tenant, principal.api_key_id, query)
    if media_type == _CSV:
        return Response(to_csv(report, query.by), media_type=_CSV)
    return Response(report.model_dump_json(by_alias=True, exclude_none=True), media_type=_JSON)
