"""Starts runs: what all patterns share. Each pattern's router builds the input of its own workflow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from structlog.contextvars import bind_contextvars
from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import WorkflowAlreadyStartedError

from sevenfold.adapters.metrics.runs import count_start
from sevenfold.adapters.temporal.disk_space import DiskSpace
from sevenfold.adapters.temporal.run_starts import (
    FINGERPRINT_MEMO,
    NewRun,
    RunQueue,
    RunTerms,
    fingerprint,
    start_run,
)
from sevenfold.api.dependencies import current_principal
from sevenfold.api.http.disk_guard import check_storage
from sevenfold.api.http.problems import ProblemError, ProblemType
from sevenfold.api.http.request_id import hops, request_id, traceparent
from sevenfold.api.runs.agents import AgentCatalog
from sevenfold.api.runs.run_limits import check_limits
from sevenfold.api.runs.start_checks import StartChecks
from sevenfold.api.runs.start_limiter import StartLimiter, StartPermit
from sevenfold.api.webhooks.requests import WebhookTerms
from sevenfold.contracts.access.principals import RunGrant
from sevenfold.contracts.agents.interface import MAX_HOPS, AgentRequest, Message, RequestContext
from sevenfold.contracts.identity import derive_id, new_id
from sevenfold.contracts.payload import JsonObject
from sevenfold.contracts.runs.requests import StartOptions
from sevenfold.contracts.runs.run import (
    ID_PREFIXES,
    Pattern,
    RunInput,
    RunResult,
)


@dataclass(frozen=True)
class StartedRun:
    """A run that exists. `replayed`: an earlier request with the same key started it. `permit` is to be released when
    the run has its answer, and ends by itself soon.
    """

    run_id: str
    handle: WorkflowHandle[Any, RunResult]
    replayed: bool
    permit: StartPermit | None = None


@dataclass(frozen=True)
class RunStarter:
    """Starts the workflows of runs. `publish_interactions`: the end of each run becomes an event."""

    client: Client
    task_queue: str
    agents: AgentCatalog
    checks: StartChecks
    webhooks: WebhookTerms
    disk: DiskSpace
    publish_interactions: bool
    limiter: StartLimiter = field(default_factory=StartLimiter)

    def prepare(
        self,
        pattern: Pattern,
        tenant: str,
        options: StartOptions,
        *,
        task: str,
        key: str | None,
        grant: RunGrant | None = None,
    ) -> NewRun:
        """Resolves the agent and gives the run its id, which is derived from the key if there is one. A run token's
        `grant` has id and agent. Raises 507 if the disk is full, 508 for a request that loops between gateways, 422
        if there is no such agent, and 403 if the grant is for another.
        """
        check_storage(self.disk)
        if hops() > MAX_HOPS:
            detail = f"The request has passed {MAX_HOPS} gateways. Does an agent call itself?"
            raise ProblemError(ProblemType.LOOP_DETECTED, detail)
        prefix = ID_PREFIXES[pattern]
        if grant is not None and grant.agent is not None:
            if options.agent not in (None, grant.agent):
                raise ProblemError(
                    ProblemType.FORBIDDEN, f"/agent: the run token is for the agent {grant.agent} alone."
                )
            for name, value in (("webhookUrl", options.webhook_url), ("webhookEndpoint", options.webhook_endpoint)):
                if value is not None:
                    raise ProblemError(ProblemType.FORBIDDEN, f"/{name}: a run token starts no run with a webhook.")
            # The token is the key: whoever sends the same request with it again joins the same run.
            run_id, agent = grant.run_id, self.agents.resolve(tenant, grant.agent)
            return NewRun(
                pattern,
                tenant,
                run_id,
                agent,
                task,
                options,
                key=grant.run_id,
                key_id=current_principal.get().api_key_id,
            )
        return NewRun(
            pattern=pattern,
            tenant=tenant,
            run_id=derive_id(prefix, tenant, pattern, key) if key else new_id(prefix),
            agent=self.agents.resolve(tenant, options.agent),
            task=task,
            options=options,
            key=key,
            key_id=current_principal.get().api_key_id,
        )

    async def build_input(
        self,
        run: NewRun,
        *,
        query: str | None = None,
        context: JsonObject | None = None,
        data: JsonObject | None = None,
        messages: Sequence[Message] = (),
    ) -> RunInput:
        """Builds the workflow input that all patterns share. Raises 422 if the webhook is invalid, or if `maxCost` is
        set for an agent without a price.
        """
        return RunInput(
            agent=run.agent,
            request=AgentRequest(
                run_id=run.run_id,
                task=run.task,
                query=query,
                context=context or {},
                data=data or {},
                params=run.options.params,
                metadata=run.options.metadata,
                messages=list(messages),
            ),
            timeout=run.options.timeout,
            request_context=RequestContext(request_id=request_id(), traceparent=traceparent(), hops=hops()),
            target=self.agents.workflow_targets.get(run.agent),
            webhook=await self.webhooks.build(run.tenant, run.run_id, run.agent, run.options),
            publish_interaction=self.publish_interactions,
            key_id=run.key_id,
            limits=check_limits(run.options, run.agent, self.agents.configs[run.agent]),
        )

    async def start(
        self,
        run: NewRun,
        workflow_input: RunInput,
        *,
        queue: RunQueue,
        fails_fast: bool,
        memo: Mapping[str, Any] | None = None,
        details: str | None = None,
        items: int = 1,
    ) -> StartedRun:
        """Starts the run, or finds the one that this key started before. `fails_fast`: a client waits, so it gets 503
        at once while the agent's circuit is open; other runs wait for the agent. `details` is shown in the Temporal
        UI. `items`: of a job. Raises 422 if the key belongs to another body, and QuotaExceededError.
        """
        reservation = None
        try:
            reservation = await self.checks.reserve_place(run, items)
            if fails_fast:
                await self.checks.check_circuit(run)
            permit = await self.limiter.acquire(run.tenant)
            try:
                handle = await self._start_workflow(run, workflow_input, queue, memo or {}, details)
            except BaseException:
                permit.release()
                raise
        except BaseException as error:
            if reservation is not None:
                reservation.release()
            if isinstance(error, WorkflowAlreadyStartedError):
                bind_contextvars(run_id=run.run_id)
                return StartedRun(run.run_id, await self._find_replayed_run(run), replayed=True)
            raise
        reservation.start()
        permit.started()
        bind_contextvars(run_id=run.run_id)  # for the request's line in the log
        count_start(run.pattern, run.agent, run.task, run.tenant)
        if queue is RunQueue.BATCH:  # It waits for a worker, however long that takes.
            permit.release()
        return StartedRun(run.run_id, handle, replayed=False, permit=permit)

    async def _start_workflow(
        self, run: NewRun, workflow_input: RunInput, queue: RunQueue, memo: Mapping[str, Any], details: str | None
    ) -> WorkflowHandle[Any, RunResult]:
        lineage = None if run.key_id is None else self.agents.access.latest.find_lineage(run.key_id)
        terms = RunTerms(queue, key_lineage=lineage, memo=memo, details=details)
        return await start_run(self.client, self.task_queue, run, workflow_input, terms)

    async def _find_replayed_run(self, run: NewRun) -> WorkflowHandle[Any, RunResult]:
        handle: WorkflowHandle[Any, RunResult] = self.client.get_workflow_handle(
            run.workflow_id, result_type=RunResult
        )
        memo = await (await handle.describe()).memo()
        if memo.get(FINGERPRINT_MEMO) != fingerprint(run.options):
            detail = "An earlier request with this Idempotency-Key had another body. Use a new key for a new request."
            if run.key == run.run_id:
                detail = "This run token has started its run with another body. Issue a new token for another run."
            raise ProblemError(ProblemType.KEY_REUSED, detail, run_id=run.run_id)
        return handle
