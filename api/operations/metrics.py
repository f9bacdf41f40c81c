"""`GET /metrics`: the metrics of this process, for Prometheus."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response

from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.metrics.page import MetricsPage, visible_to
from sevenfold.api.dependencies import PrincipalDep, component
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.strict_json import StrictJsonRoute

router = APIRouter(tags=["health"], route_class=StrictJsonRoute)

AccessDirectoryDep = Annotated[AccessDirectory, Depends(component("access"))]
MetricsPageDep = Annotated[MetricsPage, Depends(component("metrics_page"))]

_TEXT, _OPEN_METRICS = "text/plain", "application/openmetrics-text"


@router.get(
    "/metrics",
    operation_id="getMetrics",
    summary="Read the metrics",
    response_class=Response,
    responses={
        200: {
            "description": "Metrics of this process and of Temporal's SDK in it.",
            "content": {media_type: {"schema": {"type": "string"}} for media_type in (_TEXT, _OPEN_METRICS)},
        },
        **PROBLEMS,
    },
)
async def read_metrics(
    page: MetricsPageDep,
    principal: PrincipalDep,
    access: AccessDirectoryDep,
    accept: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Response:
    """In Prometheus's text format, or as OpenMetrics if `Accept` prefers it. What all processes share (task queues,
    dead letters) is at most 10 s old. With keys it needs the scope `metrics:read`. Administrators and the tenant
    `default` see all. Keys of other tenants see no agents that their tenant may not use, no tenants and no brokers.
    """
    is_visible = visible_to(principal, access.latest.allowed_agents(principal.tenant))
    body, media_type = await page.render(accept or "", is_visible)
    return Response(body, media_type=media_type)
