"""Pattern 4, webhook callback: `POST /analyze`. The task can be polled for at `GET /tasks/{id}` too."""

from fastapi import APIRouter, Response

from sevenfold.adapters.outbound.addresses import UnsafeUrlError
from sevenfold.adapters.outbound.urls import check_url
from sevenfold.api.dependencies import API_PREFIX, GatewayDep, TenantDep
from sevenfold.api.http.idempotency import REPLAYED, IdempotencyKeyDep
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.problems import invalid_field
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.polling import TaskAccepted
from sevenfold.api.runs.start import StartSpec, start_run
from sevenfold.contracts.analysis import AnalyzeRequest
from sevenfold.contracts.documents import DocumentByUrl
from sevenfold.contracts.runs import Pattern, RunStatus

router = APIRouter(prefix=API_PREFIX, tags=["webhook callback"], route_class=StrictJsonRoute)


@router.post(
    "/analyze",
    operation_id="analyze",
    summary="Analyze a document and be called back",
    status_code=202,
    responses=PROBLEMS,
)
async def analyze(
    body: AnalyzeRequest, gateway: GatewayDep, tenant: TenantDep, key: IdempotencyKeyDep, response: Response
) -> TaskAccepted:
    """Answers at once; `{taskId, status, result}` (or `error`) is posted to `webhookUrl` when the run has ended,
    signed, and again for three days until the receiver takes it.
    """
    if isinstance(body.document, DocumentByUrl):
        try:
            check_url(body.document.url, allow_loopback=gateway.webhooks.allow_loopback)
        except UnsafeUrlError as error:
            raise invalid_field("/document", str(error)) from None
    start = StartSpec(Pattern.WEBHOOK, tenant, body, task=body.task, key=key, document=body.document)
    started = await start_run(gateway, start)
    response.headers["Location"] = f"{API_PREFIX}/tasks/{started.run_id}"
    if started.replayed:
        response.headers.update(REPLAYED)
    return TaskAccepted(task_id=started.run_id, status=RunStatus.PROCESSING)
