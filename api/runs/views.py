"""Runs as the API shows them."""

from datetime import datetime
from typing import Any

from pydantic import Field
from temporalio.client import WorkflowExecution
from temporalio.common import SearchAttributeKey

from sevenfold.adapters.temporal.run_outcomes import to_run_status
from sevenfold.api.dependencies import API_PREFIX, TemporalUi
from sevenfold.api.runs.approval_desk import InputRequest, without_links
from sevenfold.api.webhooks.views import RunWebhookView
from sevenfold.contracts.access.principals import Principal
from sevenfold.contracts.agents.interface import Progress
from sevenfold.contracts.agents.steps import StepView
from sevenfold.contracts.identity import parse_public_id, parse_tenant
from sevenfold.contracts.payload import JsonObject, Payload
from sevenfold.contracts.runs.outcomes import RunAnswer
from sevenfold.contracts.runs.run import WORKFLOW_TYPES, Pattern, RunError, RunStatus, Waiting

PATTERN_OF_TYPE = {workflow_type: pattern for pattern, workflow_type in WORKFLOW_TYPES.items()}
AGENT = SearchAttributeKey.for_keyword("Agent")
TASK = SearchAttributeKey.for_keyword("Task")


class RunLinks(Payload):
    """Links of a run: paths of this API, and the run's page in the Temporal UI if its address is configured."""

    self: str
    stream: str
    cancel: str
    temporal_ui: str | None


class RunSummary(Payload):
    """A run in a list."""

    id: str
    tenant: str
    pattern: Pattern
    agent: str
    task: str
    status: RunStatus
    created_at: datetime
    closed_at: datetime | None
    links: RunLinks


class Run(RunSummary):
    """A run as it is now."""

    progress: Progress | None = Field(description="The agent's latest progress; null if it reports none.")
    attempt: int = Field(description="The attempt of the agent call, from 1.")
    waiting: Waiting | None = Field(description="For a run that waits for a retry or a worker; else null.")
    cancel_requested: bool = Field(
        description="Cancellation was requested. A run without a worker stops once there is one."
    )
    metadata: JsonObject
    result: RunAnswer | None
    error: RunError | None
    trace_id: str | None = Field(description="The id of the trace that the run belongs to (W3C).")
    requests: list[InputRequest] | None = Field(
        default=None, description="What its agent asks people, with the status `input_required`."
    )
    steps: list[StepView] | None = Field(
        default=None, description="The steps of a durable agent, when one run is read; null if it has none."
    )
    webhook: RunWebhookView | None = Field(description="The state of its webhook's delivery; null without a webhook.")

    def shown_to(self, principal: Principal) -> "Run":
        """Returns the run as a principal may see it: without what the client and the agent wrote unless it may read
        runs, and without the links that answer questions unless it may answer.
        """
        if not principal.may_read_runs:
            none = ("progress", "result", "error", "requests", "steps", "webhook")
            nothing: dict[str, Any] = {**dict.fromkeys(none), "metadata": {}}
            return self.model_copy(update=nothing)
        if self.requests and not principal.may_answer:
            return self.model_copy(update={"requests": without_links(self.requests)})
        return self


def run_links(ui: TemporalUi, tenant: str, run_id: str) -> RunLinks:
    """Returns a run's links."""
    path = f"{API_PREFIX}/runs/{run_id}"
    return RunLinks(self=path, stream=f"{path}/stream", cancel=f"{path}/cancel", temporal_ui=ui.link(tenant, run_id))


def summarize_run(ui: TemporalUi, execution: WorkflowExecution) -> RunSummary:
    """Returns a run as far as visibility or a description shows it."""
    tenant, run_id = parse_tenant(execution.id), parse_public_id(execution.id)
    attributes = execution.typed_search_attributes
    return RunSummary(
        id=run_id,
        tenant=tenant,
        pattern=PATTERN_OF_TYPE[execution.workflow_type],
        agent=attributes.get(AGENT, ""),
        task=attributes.get(TASK, ""),
        status=to_run_status(execution),
        created_at=execution.start_time,
        closed_at=execution.close_time,
        links=run_links(ui, tenant, run_id),
    )
