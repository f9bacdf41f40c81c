"""The dead letter queue of events, kept as failed workflows in Temporal: find, show, redrive."""

from dataclasses import dataclass
from datetime import datetime

from pydantic import Field
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionDescription
from temporalio.service import RPCError

from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.quotas.rates import RateQuotas
from sevenfold.adapters.temporal.find_execution import find_execution
from sevenfold.adapters.temporal.run_outcomes import fetch_outcome
from sevenfold.adapters.temporal.run_restarts import load_input, restart_run
from sevenfold.api.dependencies import TemporalUi
from sevenfold.api.http.listing import tenant_condition
from sevenfold.api.http.problems import not_found
from sevenfold.api.http.time_params import to_query_time
from sevenfold.contracts.events.dead_letters import IS_DEAD, LETTER_WORKFLOW_TYPES, LetterKind
from sevenfold.contracts.events.event_driven import REJECTED_ID_PREFIX, REJECTION_MEMO, Rejection
from sevenfold.contracts.identity import build_workflow_id, is_public_id, parse_public_id, parse_tenant
from sevenfold.contracts.payload import Payload
from sevenfold.contracts.runs.run import ID_PREFIXES, Pattern

_KIND_OF_TYPE = {workflow_type: kind for kind, workflow_type in LETTER_WORKFLOW_TYPES.items()}
_PREFIXES = (REJECTED_ID_PREFIX, ID_PREFIXES[Pattern.EVENT], ID_PREFIXES[Pattern.REACTION])


class DeadLetter(Payload):
    """A dead letter, and the reason it is one."""

    id: str
    tenant: str
    kind: LetterKind
    reason: str
    via: str | None = Field(default=None, description="For a rejected message: `http`, or a broker's name.")
    at: datetime
    unreadable: bool = False
    temporal_ui: str | None


@dataclass(frozen=True)
class DeadLetterQueue:
    """Finds, shows and redrives dead letters."""

    client: Client
    ui: TemporalUi
    access: AccessDirectory
    rates: RateQuotas

    async def find(self, tenant: str, letter_id: str) -> WorkflowExecutionDescription:
        """Describes a dead letter. Raises 404 if there is none with this id."""
        if is_public_id(letter_id) and letter_id.partition("_")[0] in _PREFIXES:
            found = await find_execution(self.client, build_workflow_id(tenant, letter_id))
            if (
                found is not None
                and found.status is not None
                and found.status.name in ("FAILED", "TIMED_OUT", "TERMINATED")
            ):
                return found
        raise not_found("This dead letter")

    async def show(self, execution: WorkflowExecution) -> DeadLetter:
        """Returns a dead letter with its reason."""
        kind = _KIND_OF_TYPE[execution.workflow_type]
        tenant, letter_id = parse_tenant(execution.id), parse_public_id(execution.id)
        rejection: Rejection | None = None
        unreadable = False
        try:
            if kind is LetterKind.REJECTED:
                rejection = await execution.memo_value(REJECTION_MEMO, type_hint=Rejection)
            reason = rejection.reason if rejection else await self._load_reason(execution)
        except RPCError:
            raise
        except Exception as error:  # one letter that cannot be decoded must not hide the whole page
            name = type(error).__name__
            reason, unreadable = f"The reason cannot be decoded ({name}). Open the letter in the Temporal UI.", True
        return DeadLetter(
            id=letter_id,
            tenant=tenant,
            kind=kind,
            reason=reason,
            via=rejection.via if rejection else None,
            at=execution.close_time or execution.start_time,
            unreadable=unreadable,
            temporal_ui=self.ui.link(tenant, letter_id),
        )

    async def _load_reason(self, execution: WorkflowExecution) -> str:
        _, error = await fetch_outcome(self.client, execution.id)
        return f"{error.code}: {error.detail}" if error else "The workflow recorded no reason. See the Temporal UI."

    async def redrive(self, dead: WorkflowExecutionDescription, key_id: str | None) -> bool:
        """Starts the workflow again with its own input. Returns False for a rejected message, which has no event to
        start with, and if another request has just redriven the letter. It counts as an event, for the tenant and
        the asking key: raises QuotaExceededError.
        """
        if _KIND_OF_TYPE[dead.workflow_type] is LetterKind.REJECTED:
            return False
        access = await self.access.load()
        await self.rates.admit_events(access.quota_owners(parse_tenant(dead.id), key_id), 1)
        return await restart_run(self.client, dead, await load_input(self.client, dead))


def dead_letters_query(tenant: str | None, kind: LetterKind | None, since: datetime | None) -> str:
    """Builds the visibility query for dead letters."""
    types = ", ".join(f"'{LETTER_WORKFLOW_TYPES[one]}'" for one in ([kind] if kind else LetterKind))
    conditions = [f"WorkflowType IN ({types})", *tenant_condition(tenant), IS_DEAD]
    if since:
        conditions.append(f"StartTime >= '{to_query_time(since)}'")
    return " AND ".join(conditions)
