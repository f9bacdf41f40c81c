"""Retries runs that have failed or were cancelled: `POST /runs/{id}/retry`."""

from dataclasses import dataclass

from temporalio.client import Client, WorkflowExecutionStatus

from sevenfold.adapters.metrics.runs import count_start
from sevenfold.adapters.temporal.disk_space import DiskSpace
from sevenfold.adapters.temporal.run_outcomes import is_cancel_requested
from sevenfold.adapters.temporal.run_restarts import load_input, restart_run
from sevenfold.api.http.disk_guard import check_storage
from sevenfold.api.http.problems import ProblemError, ProblemType
from sevenfold.api.runs.agents import AgentCatalog
from sevenfold.api.runs.poll_cache import PollCache
from sevenfold.api.runs.reader import RunReader
from sevenfold.api.runs.start_checks import StartChecks
from sevenfold.api.runs.views import PATTERN_OF_TYPE, Run
from sevenfold.contracts.runs.jobs import JobInput
from sevenfold.contracts.runs.run import RunInput


@dataclass(frozen=True)
class RunRetrier:
    """Starts runs again under their own ids: links, idempotency keys and webhooks stay theirs."""

    client: Client
    reader: RunReader
    agents: AgentCatalog
    checks: StartChecks
    disk: DiskSpace
    poll_cache: PollCache

    async def retry(self, tenant: str, run_id: str) -> tuple[Run, bool]:
        """Returns the run as it is then, and whether this request has started it again; an open run is left alone.
        Raises 404, 409 for a run that has completed, 422 if its agent is gone, and QuotaExceededError.
        """
        ended = await self.reader.find(tenant, run_id)
        if ended.status is WorkflowExecutionStatus.COMPLETED:
            raise ProblemError(
                ProblemType.RUN_COMPLETED,
                "The run has completed: read its result, or start a new run.",
                run_id=run_id,
            )
        if is_cancel_requested(ended):
            raise ProblemError(
                ProblemType.CANCELLED,
                "The run is being cancelled. Send the request again when it has ended.",
                retry_after=1,
                run_id=run_id,
            )
        if ended.close_time is None:
            return await self.reader.load(ended), False
        check_storage(self.disk)
        run_input = await load_input(self.client, ended)
        call = run_input if isinstance(run_input, RunInput) else None
        if call is not None:
            self.agents.resolve(tenant, call.agent)
        items = run_input.items if isinstance(run_input, JobInput) else 1
        pattern = PATTERN_OF_TYPE[ended.workflow_type]
        reservation = await self.checks.quotas.reserve(tenant, call.key_id if call else None, pattern, items)
        try:
            is_started = await restart_run(self.client, ended, run_input)
        except BaseException:
            reservation.release()
            raise
        if is_started:
            reservation.start()
            if call is not None:
                count_start(pattern, call.agent, call.request.task, tenant)
        else:
            reservation.release()
        self.poll_cache.drop(tenant, run_id)
        return await self.reader.load(await self.reader.find(tenant, run_id)), is_started
