"""`GET /approvals`, and `POST /runs/{id}/responses`."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.api.dependencies import API_PREFIX, ListedTenantDep, PrincipalDep
from sevenfold.api.http.listing import PagerDep, filter_latest, tenant_condition
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.http.time_params import TimeParam, to_query_time
from sevenfold.api.runs.approval_desk import InputRequest, without_links
from sevenfold.api.runs.dependencies import ApprovalDeskDep, RunReaderDep
from sevenfold.api.runs.router import RunId
from sevenfold.api.runs.views import AGENT, TASK, Run, RunLinks, run_links
from sevenfold.contracts.agents.interface import AgentName
from sevenfold.contracts.agents.questions import INPUT_ATTRIBUTE, MAX_QUESTIONS, QuestionId, QuestionResponse
from sevenfold.contracts.identity import parse_public_id, parse_tenant
from sevenfold.contracts.payload import Payload, RequestBody
from sevenfold.contracts.runs.run import WORKFLOW_TYPES

router = APIRouter(prefix=API_PREFIX, tags=["approvals"], route_class=StrictJsonRoute)

_TYPES = ", ".join(f"'{name}'" for name in WORKFLOW_TYPES.values())


class ApprovalResponses(RequestBody):
    """Answers by the ids of their questions; several at once, or one after the other."""

    responses: dict[QuestionId, QuestionResponse] = Field(
        min_length=1,
        max_length=MAX_QUESTIONS,
        description="`{action: accept, content}` with a content that fits the schema, or `decline`, or `cancel`.",
    )


class Approval(Payload):
    """A run that waits for people, and what they are asked."""

    run_id: str
    tenant: str
    agent: str
    task: str
    created_at: datetime
    requests: list[InputRequest]
    links: RunLinks


class ApprovalPage(Payload):
    """A page of runs that wait, the latest first. `nextCursor` is null on the last page."""

    items: list[Approval]
    next_cursor: str | None


@router.post("/runs/{run_id}/responses", operation_id="respondToRun", summary="Answer a run", responses=PROBLEMS)
async def respond(
    run_id: RunId, body: ApprovalResponses, desk: ApprovalDeskDep, reader: RunReaderDep, principal: PrincipalDep
) -> Run:
    """Answers what the run's agent has asked, and returns the run as it is then. It continues when all of its
    questions have an answer. The same answer again changes nothing; another one is a 409.
    """
    await reader.find(principal.tenant, run_id)
    await desk.respond(principal.tenant, run_id, body.responses)
    run = await reader.load(await reader.find(principal.tenant, run_id))
    return run.shown_to(principal)


@router.get("/approvals", operation_id="listApprovals", summary="List what waits for people", responses=PROBLEMS)
async def list_approvals(
    desk: ApprovalDeskDep,
    reader: RunReaderDep,
    pager: PagerDep,
    tenant: ListedTenantDep,
    principal: PrincipalDep,
    status: Literal["open"] = "open",
    agent: AgentName | None = None,
    task: Annotated[str | None, Query(pattern=r"^[\w.:-]{1,100}$")] = None,
    created_before: Annotated[
        TimeParam | None, Query(alias="createdBefore", description="Only runs that were started before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: str | None = None,
) -> ApprovalPage:
    """Lists the runs whose agents ask, with their questions. Needs no worker."""
    conditions = [
        f"{INPUT_ATTRIBUTE} = true",
        "ExecutionStatus = 'Running'",
        f"WorkflowType IN ({_TYPES})",
        *tenant_condition(tenant),
        *([f"Agent = '{agent}'"] if agent else []),
        *([f"Task = '{task}'"] if task else []),
        *([f"StartTime < '{to_query_time(created_before)}'"] if created_before else []),
    ]
    listed, next_cursor = await pager.list_page(" AND ".join(conditions), limit, cursor)
    present = await filter_latest(pager.client, listed)
    questions = await gather_bounded(desk.read, present)
    items = []
    for execution, asked in zip(present, questions, strict=True):
        if not asked:
            continue
        owner, run_id = parse_tenant(execution.id), parse_public_id(execution.id)
        attributes = execution.typed_search_attributes
        shown = desk.show(owner, run_id, asked)
        items.append(
            Approval(
                run_id=run_id,
                tenant=owner,
                agent=attributes.get(AGENT, ""),
                task=attributes.get(TASK, ""),
                created_at=execution.start_time,
                requests=shown if principal.may_answer else without_links(shown),
                links=run_links(reader.ui, owner, run_id),
            )
        )
    return ApprovalPage(items=items, next_cursor=next_cursor)
