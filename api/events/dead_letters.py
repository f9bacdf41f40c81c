"""Dead letters of events: what was not accepted, what was not passed on, and reactions that failed for good."""

from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field
from temporalio.client import WorkflowExecution, WorkflowExecutionDescription
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.adapters.temporal.run_outcomes import fetch_input, fetch_outcome
from sevenfold.api.dependencies import API_PREFIX, Gateway, GatewayDep, TenantDep
from sevenfold.api.http.listing import filter_latest, find_execution, list_page
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.problems import ProblemError, ProblemType, not_found
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.http.time_params import TimeParam, UtcTime, to_query_time
from sevenfold.contracts.events import (
    REJECTED_ID_PREFIX,
    REJECTION_MEMO,
    EventInput,
    ReactionInput,
    Rejection,
    event_task_queue,
)
from sevenfold.contracts.identity import build_workflow_id, is_public_id, parse_public_id
from sevenfold.contracts.payload import Payload, RequestBody
from sevenfold.contracts.runs import DEADLINE_MEMO, GENERATION_MEMO, ID_PREFIXES, Pattern, RunResult, compute_deadline

router = APIRouter(prefix=API_PREFIX, tags=["event-driven"], route_class=StrictJsonRoute)

_MAX_REDRIVEN = 1_000
_PAGE = 100


class LetterKind(StrEnum):
    """`rejected`: it was never accepted. `event`: it was refused, or not taken by a broker. `reaction`: its agent
    failed for good.
    """

    REJECTED = "rejected"
    EVENT = "event"
    REACTION = "reaction"


_TYPES = {
    LetterKind.REJECTED: "RejectedEvent",
    LetterKind.EVENT: "EventDriven",
    LetterKind.REACTION: "EventReaction",
}
_KIND_OF_TYPE = {workflow_type: kind for kind, workflow_type in _TYPES.items()}
_DEAD_STATUSES = "('Failed', 'TimedOut', 'Terminated')"
_PREFIXES = (REJECTED_ID_PREFIX, ID_PREFIXES[Pattern.EVENT], ID_PREFIXES[Pattern.REACTION])


class DeadLetter(Payload):
    """What is dead, and why."""

    id: str
    kind: LetterKind
    reason: str
    via: str | None = Field(default=None, description="For what was rejected: `http`, or a broker's name.")
    at: datetime
    unreadable: bool = False
    temporal_ui: str | None


class DeadLetterPage(Payload):
    """A page of dead letters, the latest first. `nextCursor` is null on the last page."""

    items: list[DeadLetter]
    next_cursor: str | None


class RedriveRequest(RequestBody):
    """Which dead letters to drive again: those of reactions, unless it says otherwise."""

    since: UtcTime
    kind: LetterKind = LetterKind.REACTION


class Redriven(Payload):
    """How many began again; `more`: ask once more for the rest."""

    redriven: int
    more: bool


LetterId = Annotated[str, Path(description="A dead letter's id: `rej_…`, `evt_…` or `rea_…`.")]


@router.get("/dead-letters", operation_id="listDeadLetters", summary="List dead letters", responses=PROBLEMS)
async def list_dead_letters(
    gateway: GatewayDep,
    tenant: TenantDep,
    kind: LetterKind | None = None,
    since: TimeParam | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: str | None = None,
) -> DeadLetterPage:
    """A page may hold fewer than `limit` items and still have a next one: what was driven again is no dead letter."""
    listed, next_cursor = await list_page(gateway, _query(tenant, kind, since), limit, cursor)
    present = await filter_latest(gateway, listed)
    return DeadLetterPage(
        items=await gather_bounded(partial(_to_dead_letter, gateway, tenant), present), next_cursor=next_cursor
    )


@router.post(
    "/dead-letters/redrive",
    operation_id="redriveDeadLetters",
    summary="Drive many again",
    status_code=202,
    responses=PROBLEMS,
)
async def redrive_many(body: RedriveRequest, gateway: GatewayDep, tenant: TenantDep) -> Redriven:
    """Those that were begun `since`, and are dead now."""
    redriven, seen, cursor = 0, 0, None
    while seen < _MAX_REDRIVEN:
        listed, cursor = await list_page(gateway, _query(tenant, body.kind, body.since), _PAGE, cursor)
        seen += len(listed)
        present = await filter_latest(gateway, listed)
        redriven += sum(await gather_bounded(partial(_redrive, gateway), present))
        if cursor is None:
            break
    return Redriven(redriven=redriven, more=cursor is not None)


@router.get(
    "/dead-letters/{letter_id}", operation_id="getDeadLetter", summary="Read a dead letter", responses=PROBLEMS
)
async def read_dead_letter(letter_id: LetterId, gateway: GatewayDep, tenant: TenantDep) -> DeadLetter:
    """Why it is one. What came stands in the Temporal UI, as the workflow's input."""
    return await _to_dead_letter(gateway, tenant, await _find_dead_letter(gateway, tenant, letter_id))


@router.post(
    "/dead-letters/{letter_id}/redrive",
    operation_id="redriveDeadLetter",
    summary="Drive again",
    status_code=202,
    responses=PROBLEMS,
)
async def redrive(letter_id: LetterId, gateway: GatewayDep, tenant: TenantDep) -> DeadLetter:
    """Under the same id: what it publishes has the ids that it would have had."""
    letter = await _find_dead_letter(gateway, tenant, letter_id)
    before = await _to_dead_letter(gateway, tenant, letter)
    if before.kind is LetterKind.REJECTED:
        raise ProblemError(
            ProblemType.DEAD_LETTER_FINAL, f"It was never an event of its own: {before.reason} Send it anew, mended."
        )
    await _redrive(gateway, letter)
    return before


def _query(tenant: str, kind: LetterKind | None, since: datetime | None) -> str:
    types = ", ".join(f"'{_TYPES[one]}'" for one in ([kind] if kind else LetterKind))
    query = f"WorkflowType IN ({types}) AND Tenant = '{tenant}' AND ExecutionStatus IN {_DEAD_STATUSES}"
    return f"{query} AND StartTime >= '{to_query_time(since)}'" if since else query


async def _find_dead_letter(gateway: Gateway, tenant: str, letter_id: str) -> WorkflowExecutionDescription:
    if is_public_id(letter_id) and letter_id.partition("_")[0] in _PREFIXES:
        found = await find_execution(gateway, build_workflow_id(tenant, letter_id))
        if (
            found is not None
            and found.status is not None
            and found.status.name in ("FAILED", "TIMED_OUT", "TERMINATED")
        ):
            return found
    raise not_found("This dead letter")


async def _to_dead_letter(gateway: Gateway, tenant: str, execution: WorkflowExecution) -> DeadLetter:
    kind = _KIND_OF_TYPE[execution.workflow_type]
    letter = parse_public_id(execution.id)
    rejection: Rejection | None = None
    unreadable = False
    try:
        if kind is LetterKind.REJECTED:
            rejection = await execution.memo_value(REJECTION_MEMO, type_hint=Rejection)
        reason = rejection.reason if rejection else await _load_reason(gateway, execution)
    except RPCError:
        raise
    except Exception as error:  # one that cannot be decoded must not hide all the others
        reason, unreadable = f"It cannot be shown here ({type(error).__name__}); the Temporal UI has it.", True
    return DeadLetter(
        id=letter,
        kind=kind,
        reason=reason,
        via=rejection.via if rejection else None,
        at=execution.close_time or execution.start_time,
        unreadable=unreadable,
        temporal_ui=gateway.ui_link(tenant, letter),
    )


async def _load_reason(gateway: Gateway, execution: WorkflowExecution) -> str:
    _, error = await fetch_outcome(gateway.client, execution.id)
    return f"{error.code}: {error.detail}" if error else "It ended without a word; the Temporal UI says more."


async def _redrive(gateway: Gateway, dead: WorkflowExecutionDescription) -> bool:
    """Starts it once more with what it began with; False where it cannot be, or somebody else has just done so."""
    kind = _KIND_OF_TYPE[dead.workflow_type]
    if kind is LetterKind.REJECTED:
        return False
    memo = dict(await dead.memo())
    workflow_input: Payload
    if kind is LetterKind.EVENT:
        workflow_input = await fetch_input(gateway.client, dead, EventInput)
    else:
        reaction = await fetch_input(gateway.client, dead, ReactionInput)
        workflow_input = reaction.model_copy(update={"generation": reaction.generation + 1})
        memo |= {GENERATION_MEMO: reaction.generation + 1, DEADLINE_MEMO: compute_deadline(reaction.timeout)}
    try:
        await gateway.client.start_workflow(
            dead.workflow_type,
            workflow_input,
            id=dead.id,
            task_queue=event_task_queue(gateway.task_queue),
            result_type=RunResult,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            memo=memo,
            search_attributes=dead.typed_search_attributes,
            static_summary="driven again",
        )
    except WorkflowAlreadyStartedError:
        return False
    return True
