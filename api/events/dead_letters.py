"""Dead letters of events: list, read, redrive."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from temporalio.client import WorkflowExecutionDescription

from sevenfold.adapters.quotas.exceeded import QuotaExceededError
from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.api.dependencies import API_PREFIX, ClientDep, ListedTenantDep, PrincipalDep, TenantDep
from sevenfold.api.events.dead_letter_queue import DeadLetter, dead_letters_query
from sevenfold.api.events.dependencies import DeadLetterQueueDep
from sevenfold.api.http.listing import PagerDep, filter_latest
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.problems import ProblemError, ProblemType
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.http.time_params import TimeParam, UtcTime
from sevenfold.contracts.events.dead_letters import LetterKind
from sevenfold.contracts.payload import Payload, RequestBody

router = APIRouter(prefix=API_PREFIX, tags=["event-driven"], route_class=StrictJsonRoute)

# Maximum of redrives per request; the next request continues.
_MAX_REDRIVEN = 1_000
_PAGE = 100


class DeadLetterPage(Payload):
    """A page of dead letters, the latest first. `nextCursor` is null on the last page."""

    items: list[DeadLetter]
    next_cursor: str | None


class RedriveRequest(RequestBody):
    """Which dead letters to redrive; by default those of reactions."""

    since: UtcTime
    kind: LetterKind = LetterKind.REACTION


class Redriven(Payload):
    """How many dead letters were started again. `more`: send the request again for the rest."""

    redriven: int
    more: bool


LetterId = Annotated[str, Path(description="A dead letter's id: `rej_…`, `evt_…` or `rea_…`.")]


@router.get("/dead-letters", operation_id="listDeadLetters", summary="List dead letters", responses=PROBLEMS)
async def list_dead_letters(
    letters: DeadLetterQueueDep,
    client: ClientDep,
    pager: PagerDep,
    tenant: ListedTenantDep,
    kind: LetterKind | None = None,
    since: TimeParam | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: str | None = None,
) -> DeadLetterPage:
    """Lists the latest first. A page may hold fewer than `limit` items and still have a next one, because redriven
    letters are left out.
    """
    listed, next_cursor = await pager.list_page(dead_letters_query(tenant, kind, since), limit, cursor)
    present = await filter_latest(client, listed)
    return DeadLetterPage(items=await gather_bounded(letters.show, present), next_cursor=next_cursor)


@router.post(
    "/dead-letters/redrive",
    operation_id="redriveDeadLetters",
    summary="Redrive many dead letters",
    status_code=202,
    responses=PROBLEMS,
)
async def redrive_many(
    body: RedriveRequest, letters: DeadLetterQueueDep, client: ClientDep, pager: PagerDep, principal: PrincipalDep
) -> Redriven:
    """Redrives what was started since `since` and is a dead letter now. Each counts as an event; when the rate of
    events is used up, `more` is true.
    """
    tenant = principal.tenant
    refusal: QuotaExceededError | None = None

    async def redrive_one(letter: WorkflowExecutionDescription) -> bool:
        nonlocal refusal
        try:
            return refusal is None and await letters.redrive(letter, principal.api_key_id)
        except QuotaExceededError as error:
            refusal = error
            return False

    redriven, seen, cursor = 0, 0, None
    while refusal is None and seen < _MAX_REDRIVEN:
        listed, cursor = await pager.list_page(dead_letters_query(tenant, body.kind, body.since), _PAGE, cursor)
        seen += len(listed)
        present = await filter_latest(client, listed)
        redriven += sum(await gather_bounded(redrive_one, present))
        if cursor is None:
            break
    if refusal is not None and not redriven:
        raise refusal
    return Redriven(redriven=redriven, more=refusal is not None or cursor is not None)


@router.get(
    "/dead-letters/{letter_id}", operation_id="getDeadLetter", summary="Read a dead letter", responses=PROBLEMS
)
async def read_dead_letter(letter_id: LetterId, letters: DeadLetterQueueDep, tenant: TenantDep) -> DeadLetter:
    """Returns the dead letter and its reason. The message itself is the workflow's input in the Temporal UI."""
    return await letters.show(await letters.find(tenant, letter_id))


@router.post(
    "/dead-letters/{letter_id}/redrive",
    operation_id="redriveDeadLetter",
    summary="Redrive a dead letter",
    status_code=202,
    responses=PROBLEMS,
)
async def redrive(letter_id: LetterId, letters: DeadLetterQueueDep, principal: PrincipalDep) -> DeadLetter:
    """Starts the workflow again under the same id, so that derived events keep their ids. It counts as an event."""
    execution = await letters.find(principal.tenant, letter_id)
    letter = await letters.show(execution)
    if letter.kind is LetterKind.REJECTED:
        raise ProblemError(
            ProblemType.DEAD_LETTER_FINAL,
            f"The message was rejected and never became an event: {letter.reason} Correct it and send it again.",
        )
    await letters.redrive(execution, principal.api_key_id)
    return letter
