"""Pattern 4, webhook callback: `POST /analyze`. Clients can also poll the task at `GET /tasks/{id}`."""

from fastapi import APIRouter, Response

from sevenfold.adapters.temporal.run_starts import RunQueue
from sevenfold.adapters.webhooks.sealed_urls import seal_document
from sevenfold.api.dependencies import API_PREFIX, TenantDep
from sevenfold.api.http.idempotency import REPLAYED, IdempotencyKeyDep
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.problems import invalid_field
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.http.url_policy import UrlPolicyDep
from sevenfold.api.polling import TaskAccepted
from sevenfold.api.runs.dependencies import RunStarterDep
from sevenfold.contracts.agents.documents import DocumentByUrl
from sevenfold.contracts.runs.analysis import AnalysisInput, AnalyzeRequest
from sevenfold.contracts.runs.run import Pattern, RunStatus

router = APIRouter(prefix=API_PREFIX, tags=["webhook callback"], route_class=StrictJsonRoute)


@router.post(
    "/analyze",
    operation_id="analyze",
    summary="Analyze a document and post the result to a webhook",
    status_code=202,
    responses=PROBLEMS,
)
async def analyze(
    body: AnalyzeRequest,
    starter: RunStarterDep,
    url_policy: UrlPolicyDep,
    tenant: TenantDep,
    key: IdempotencyKeyDep,
    response: Response,
) -> TaskAccepted:
    """Answers at once. When the run has ended, posts `{taskId, status, result}` (or `error`) to the webhook, signed.
    Failed deliveries are retried for three days.
    """
    if isinstance(body.document, DocumentByUrl):
        url_policy.check(body.document.url, "/document")
    run = starter.prepare(Pattern.WEBHOOK, tenant, body, task=body.task, key=key)
    common = await starter.build_input(run)
    if common.webhook is None:
        raise invalid_field(
            "/webhookUrl", "is missing. Send it with webhookSecret, or name a stored endpoint in webhookEndpoint."
        )
    document, sealed_url = seal_document(starter.webhooks.sealer, run.workflow_id, body.document)
    workflow_input = AnalysisInput(**dict(common), document=document, sealed_document_url=sealed_url)
    started = await starter.start(run, workflow_input, queue=RunQueue.INTERACTIVE, fails_fast=False)
    response.headers["Location"] = f"{API_PREFIX}/tasks/{started.run_id}"
    if started.replayed:
        response.headers.update(REPLAYED)
    return TaskAccepted(task_id=started.run_id, status=RunStatus.PROCESSING)
