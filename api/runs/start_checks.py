"""What may refuse a run that is about to start: quotas, and the agent's circuit breaker."""

from dataclasses import dataclass

from temporalio.client import Client
from temporalio.exceptions import WorkflowAlreadyStartedError

from sevenfold.adapters.agents.admission.circuit_breakers import CircuitBreakers
from sevenfold.adapters.quotas.exceeded import QuotaExceededError
from sevenfold.adapters.quotas.open_work import Reservation
from sevenfold.adapters.quotas.starts import StartQuotas
from sevenfold.adapters.temporal.find_execution import find_execution
from sevenfold.adapters.temporal.run_starts import NewRun
from sevenfold.api.dependencies import API_PREFIX
from sevenfold.api.http.problems import ProblemError, ProblemType
from sevenfold.contracts.runs.run import WORKFLOW_TYPES


@dataclass(frozen=True)
class StartChecks:
    """The checks of one API process. A start that repeats an earlier one passes them: its run is found."""

    client: Client
    circuit_breakers: CircuitBreakers
    quotas: StartQuotas

    async def reserve_place(self, run: NewRun, items: int) -> Reservation:
        """Raises QuotaExceededError, but WorkflowAlreadyStartedError if the key has a run already."""
        try:
            return await self.quotas.reserve(run.tenant, run.key_id, run.pattern, items)
        except QuotaExceededError:
            await self._raise_if_started(run)
            raise

    async def check_circuit(self, run: NewRun) -> None:
        """Raises 503 while the circuit is open, but WorkflowAlreadyStartedError if the key has a run already."""
        seconds = await self.circuit_breakers.retry_after(run.agent)
        if seconds is None:
            return
        await self._raise_if_started(run)
        raise ProblemError(
            ProblemType.CIRCUIT_OPEN,
            f"The circuit breaker of the agent {run.agent} is open, because its latest calls failed. Send the "
            f"request again after Retry-After, or use POST {API_PREFIX}/tasks or /jobs, which wait for the agent.",
            retry_after=seconds,
        )

    async def _raise_if_started(self, run: NewRun) -> None:
        if run.key and await find_execution(self.client, run.workflow_id) is not None:
            raise WorkflowAlreadyStartedError(run.run_id, WORKFLOW_TYPES[run.pattern])
