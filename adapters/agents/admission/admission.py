"""Admission control of agent calls: first the budget, then the circuit breaker, then the limits."""

import asyncio
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from temporalio.client import Client, WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy

from sevenfold.adapters.agents.admission.circuit_breakers import RPC_TIMEOUT, CircuitBreakers
from sevenfold.adapters.agents.admission.quota_lease import QuotaLease, RequestLease
from sevenfold.adapters.metrics.runs import count_refusal, observe_call, permits_in_use
from sevenfold.contracts import workflow_types
from sevenfold.contracts.agents.circuits import control_task_queue
from sevenfold.contracts.agents.config import DirectAgentConfig
from sevenfold.contracts.agents.errors import (
    AgentBusy,
    AgentError,
    AgentFailed,
    AgentUnavailable,
    CircuitOpen,
    DeadlineExceeded,
    ErrorCode,
    QuotaExceeded,
    is_bug,
)
from sevenfold.contracts.agents.interface import Reply
from sevenfold.contracts.agents.limits import LeaseGrant, LeaseRequest, Limits, LimitsState, limits_workflow_id
from sevenfold.contracts.agents.questions import InputRequired
from sevenfold.contracts.runs.streams import StreamClosedError, StreamLogError

# The burst of an agent's rate, in seconds of it.
_BURST_SECONDS = 0.1

# Errors that count as failures of the agent in its circuit breaker: it did not answer.
_FAILURE_ERRORS = (AgentFailed, AgentUnavailable)


# Raises QuotaExceeded if the budget of a tenant, or of the key of a run, is used up.
CheckBudget = Callable[[str, str | None], Awaitable[None]]


class AdmissionControl:
    """Admission control of one process for all its agents.

    A permit holds one slot of the lease (if the agent has limits) and possibly the circuit's probe. Every permit is
    given back once: by `on_done` when the call ends, or by `release` if no call was made. `counts_bugs`: a bug in an
    agent's code counts as its failure, as it does in production.
    """

    def __init__(
        self,
        breakers: CircuitBreakers,
        leases: Mapping[str, QuotaLease],
        check_budget: CheckBudget,
        *,
        counts_bugs: bool = True,
    ) -> None:
        self._counts_bugs = counts_bugs
        self._check_budget = check_budget
        self._breakers = breakers
        self._leases = leases

    async def try_acquire(self, agent: str, tenant: str, key_id: str | None) -> "Permit | None":
        """Returns a permit if the budget is not used up, the circuit is closed and the lease has a free slot, else
        None. Does not wait for a slot.
        """
        try:
            await self._check_budget(tenant, key_id)
        except QuotaExceeded:
            return None
        if not await self._breakers.is_closed(agent):
            return None
        lease = self._leases.get(agent)
        if lease is not None and not lease.try_acquire():
            return None
        return self._permit(lease, agent, tenant, None)

    async def acquire(
        self, agent: str, tenant: str, key_id: str | None, call_id: str, timeout_seconds: float | None
    ) -> "Permit":
        """Returns a permit as soon as the limits have a slot, within `timeout_seconds` seconds (None: no time-out).

        Tenants that wait for slots take turns. `call_id` names the call if it becomes the circuit's probe.

        Raises QuotaExceeded, CircuitOpen and AgentBusy with `retry_after`.
        """
        try:
            return await self._acquire(agent, tenant, key_id, call_id, timeout_seconds)
        except (AgentBusy, CircuitOpen, QuotaExceeded) as refusal:
            count_refusal(agent, refusal.code)
            raise

    async def _acquire(
        self, agent: str, tenant: str, key_id: str | None, call_id: str, timeout_seconds: float | None
    ) -> "Permit":
        await self._check_budget(tenant, key_id)
        await self._breakers.check(agent)
        lease = self._leases.get(agent)
        if lease is not None:
            await lease.acquire(tenant, timeout_seconds)
        try:
            if lease is not None:
                await self._check_budget(tenant, key_id)  # Others may have used the rest while it waited.
            probe_id = await self._breakers.admit(agent, call_id)
        except BaseException:
            if lease is not None:
                lease.release_unused()
            raise
        return self._permit(lease, agent, tenant, probe_id)

    def _permit(self, lease: QuotaLease | None, agent: str, tenant: str, probe_id: str | None) -> "Permit":
        return Permit(self._breakers, lease, agent, tenant, probe_id, counts_bugs=self._counts_bugs)

    async def aclose(self) -> None:
        """Stops the lease renewals and waits for outstanding signals."""
        for lease in self._leases.values():
            await lease.aclose()
        await self._breakers.aclose()


class Permit:
    """One admitted call. Either `on_done` or `release` must be called, once."""

    def __init__(
        self,
        breakers: CircuitBreakers,
        lease: QuotaLease | None,
        agent: str,
        tenant: str,
        probe_id: str | None,
        *,
        counts_bugs: bool,
    ) -> None:
        self._counts_bugs = counts_bugs
        self._breakers = breakers
        self._lease = lease
        self._agent = agent
        self._tenant = tenant
        self._probe_id = probe_id
        self._started_at = time.monotonic()
        permits_in_use(agent).inc()

    def on_done(self, call: "asyncio.Task[Reply]") -> None:
        """Done callback of the call: returns the slot and records the outcome. Only a missing answer counts as a
        failure.
        """
        seconds = time.monotonic() - self._started_at
        permits_in_use(self._agent).dec()
        if self._lease is not None:
            self._lease.release(seconds)
        error = None if call.cancelled() else call.exception()
        observe_call(self._agent, _describe_outcome(call, error), seconds)
        is_ignored = is_bug(error) and not self._counts_bugs
        if call.cancelled() or is_ignored or _is_not_agent_fault(error):
            self._breakers.release_probe(self._agent, self._probe_id)
        elif error is None or _is_answer(error):
            self._breakers.record_success(self._agent, self._tenant, self._probe_id)
        else:
            self._breakers.record_failure(self._agent, self._tenant, self._probe_id)

    def release(self) -> None:
        """Returns the slot and the probe without a call."""
        permits_in_use(self._agent).dec()
        if self._lease is not None:
            self._lease.release_unused()
        self._breakers.release_probe(self._agent, self._probe_id)


def _is_answer(error: BaseException) -> bool:
    """Whether the agent was there: it refused, or asks a person."""
    is_refusal = isinstance(error, AgentError) and not isinstance(error, _FAILURE_ERRORS)
    return is_refusal or isinstance(error, InputRequired)


def _describe_outcome(call: "asyncio.Task[Reply]", error: BaseException | None) -> str:
    if call.cancelled():
        return "cancelled"
    if error is None:
        return "ok"
    if isinstance(error, InputRequired):
        return "input_required"
    return error.code if isinstance(error, AgentError) else ErrorCode.INTERNAL


def _is_not_agent_fault(error: BaseException | None) -> bool:
    """True for a deadline, which the client may have set too short, and for failures of our own stream log."""
    ours = (StreamLogError, StreamClosedError)
    return isinstance(error, (DeadlineExceeded, *ours)) or isinstance(getattr(error, "__cause__", None), ours)


def build_admission_control(
    client: Client,
    task_queue: str,
    configs: Mapping[str, DirectAgentConfig],
    breakers: CircuitBreakers,
    check_budget: CheckBudget,
    *,
    counts_bugs: bool,
) -> AdmissionControl:
    """Builds the admission control of the configured agents that workers call."""
    process_id = f"{socket.gethostname()}-{secrets.token_hex(4)}"
    leases: dict[str, QuotaLease] = {}
    for name, config in configs.items():
        if config.max_concurrency is not None or config.rate is not None:
            burst = max(1.0, (config.rate or 0.0) * _BURST_SECONDS)
            limits = Limits(max_concurrency=config.max_concurrency, rate=config.rate, burst=burst)
            leases[name] = QuotaLease(process_id, limits, lease_requester(client, task_queue, name))
    return AdmissionControl(breakers, leases, check_budget, counts_bugs=counts_bugs)


def lease_requester(client: Client, task_queue: str, name: str) -> RequestLease:
    """Returns how a process renews its lease of an agent's limits, or of a tenant's or key's rate of requests."""

    async def request_lease(request: LeaseRequest) -> LeaseGrant:
        start: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
            workflow_types.AGENT_LIMITS,
            LimitsState(),
            id=limits_workflow_id(name),
            task_queue=control_task_queue(task_queue),
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary=f"limits of {name}",
        )
        grant: LeaseGrant = await client.execute_update_with_start_workflow(
            "renew_lease", request, start_workflow_operation=start, result_type=LeaseGrant, rpc_timeout=RPC_TIMEOUT
        )
        return grant

    return request_lease
