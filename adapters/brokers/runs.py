"""Starts the runs that messages of brokers ask for."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from pydantic import ValidationError
from temporalio.client import Client
from temporalio.exceptions import WorkflowAlreadyStartedError

from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.brokers.mapping import find_value, read_body
from sevenfold.adapters.brokers.message import BrokerMessage
from sevenfold.adapters.encryption.sealing import Sealer
from sevenfold.adapters.metrics.runs import count_start
from sevenfold.adapters.quotas.exceeded import QuotaExceededError
from sevenfold.adapters.quotas.starts import StartQuotas
from sevenfold.adapters.temporal.durations import Durations, TaskKind
from sevenfold.adapters.temporal.find_execution import find_execution
from sevenfold.adapters.temporal.run_starts import (
    FINGERPRINT_MEMO,
    QUEUE_OF_ROUTE,
    NewRun,
    RunQueue,
    RunTerms,
    fingerprint,
    start_run,
)
from sevenfold.adapters.webhooks.sealed_urls import seal_document
from sevenfold.contracts.agents.documents import DocumentByUrl
from sevenfold.contracts.agents.interface import AgentRequest, RequestContext
from sevenfold.contracts.config.schema import SevenfoldConfig
from sevenfold.contracts.events.cloudevents import InvalidEventError
from sevenfold.contracts.events.event_driven import event_task_queue
from sevenfold.contracts.identity import derive_id
from sevenfold.contracts.json.pointers import MISSING, find_pointer
from sevenfold.contracts.runs.analysis import AnalysisInput, AnalyzeRequest
from sevenfold.contracts.runs.hybrid import ROUTING_MEMO, HybridInput, HybridRequest, choose_route
from sevenfold.contracts.runs.jobs import InvalidJobError, JobInput, JobRequest, build_fan_out, split_job
from sevenfold.contracts.runs.message_runs import MessagePattern, ReplyAddress, ReplyConfig, StartConfig
from sevenfold.contracts.runs.requests import TaskRequest
from sevenfold.contracts.runs.run import ID_PREFIXES, Pattern, RunInput, build_limits

_PATTERNS = {
    MessagePattern.QUEUE: Pattern.QUEUE,
    MessagePattern.POLLING: Pattern.POLLING,
    MessagePattern.ANALYZE: Pattern.WEBHOOK,
    MessagePattern.HYBRID: Pattern.HYBRID,
}

MessageRequest: TypeAlias = JobRequest | TaskRequest | AnalyzeRequest | HybridRequest

# The task of a hybrid run that has a query alone.
_QUERY_TASK = "query"

# Of what a sender names for its reply.
_MAX_ADDRESS_BYTES, _MAX_CORRELATION_BYTES = 256, 4_096

# How many mistakes of a message its dead letter names.
_MAX_MISTAKES = 10


@dataclass(frozen=True)
class MessageRun:
    """A run that a message asks for, checked: nothing but quotas and Temporal can refuse it."""

    run: NewRun
    query: str | None
    reply: ReplyAddress | None


@dataclass(frozen=True)
class MessageRuns:
    """Starts the runs of one process."""

    client: Client
    task_queue: str
    config: SevenfoldConfig
    access: AccessDirectory
    quotas: StartQuotas
    durations: Durations
    sealer: Sealer | None

    def prepare(self, message: BrokerMessage, start: StartConfig, broker: str) -> MessageRun:
        """Reads a message. Raises InvalidEventError: its body has another format, the agent's input is missing, or
        the pattern does not take it.
        """
        body = read_body(message, start.format)
        work = find_pointer(body, start.source)
        if work is MISSING:
            raise InvalidEventError([(start.source, "the message has nothing there")])
        tenant, agent = message.tenant, start.agent or self.config.default_agent
        allowed = self.access.latest.allowed_agents(tenant)
        if allowed is not None and agent not in allowed:
            raise InvalidEventError([("", f"the tenant {tenant} may not use the agent {agent}")])
        found = MISSING if start.id is None else find_value(start.id, body, message)
        has_id = isinstance(found, str | int) and not isinstance(found, bool) and found != ""
        key = f"id {found}" if has_id else f"place {message.place}"
        pattern, prefix = _PATTERNS[start.pattern], ID_PREFIXES[_PATTERNS[start.pattern]]
        options = _build_options(start, agent, work)
        if (
            self.sealer is None
            and isinstance(options, AnalyzeRequest)
            and isinstance(options.document, DocumentByUrl)
        ):
            raise InvalidEventError([("/url", "this process has no SEVENFOLD_SECRET_KEY, which keeps URLs secret")])
        run = NewRun(
            pattern=pattern,
            tenant=tenant,
            run_id=derive_id(prefix, tenant, f"{pattern}\x00{broker}\x00{message.source.source}", key),
            agent=agent,
            task=options.task or _QUERY_TASK,
            options=options,
            key=key,
            key_id=None,
        )
        # The text of an analysis is its document.
        query = work if isinstance(work, str) and start.pattern is not MessagePattern.ANALYZE else None
        return MessageRun(run, query, self._reply_address(message, body, broker))

    def _reply_address(self, message: BrokerMessage, body: Any, broker: str) -> ReplyAddress | None:
        source, form = message.source, message.source.reply or ReplyConfig()
        is_configured = source.reply_to is not None and not source.reply_to.startswith("$")
        to: Any = message.reply_to if source.reply_to is None else find_value(source.reply_to, body, message)
        correlation_id = message.correlation_id or find_value("$headers/correlation-id", body, message)
        address = _check_text(to, "the address of its reply", _MAX_ADDRESS_BYTES) or None
        if address is None and source.reply is None:
            return None  # Nobody asked for it.
        return ReplyAddress(
            broker=broker,
            task_queue=event_task_queue(self.task_queue),
            to=address,
            is_sender_chosen=not is_configured,
            correlation_id=_check_text(correlation_id, "its correlation id", _MAX_CORRELATION_BYTES),
            is_plain=form.is_plain,
            map=form.map,
        )

    def task_queue_of(self, start: StartConfig) -> str:
        """Returns the task queue that the limits of a consumer's backlog are for."""
        queue = RunQueue.BATCH if start.pattern is MessagePattern.QUEUE else RunQueue.INTERACTIVE
        return queue.task_queue(self.task_queue)

    async def start(self, prepared: MessageRun) -> None:
        """Returns when Temporal has the run; a message that comes again starts none. Raises QuotaExceededError,
        TenantErasingError and RPCError: start it again then. Raises InvalidEventError for another message with the
        same id.
        """
        run = prepared.run
        await self.access.check_not_erasing(run.tenant)
        run_input, terms = await self._build(prepared)
        items = run_input.items if isinstance(run_input, JobInput) else 1
        try:
            reservation = await self.quotas.reserve(run.tenant, None, run.pattern, items)
        except QuotaExceededError:
            if await find_execution(self.client, run.workflow_id) is None:
                raise
            await self._check_repeated(run, terms)  # A message that comes again needs no place.
            return
        try:
            await start_run(self.client, self.task_queue, run, run_input, terms)
        except WorkflowAlreadyStartedError:
            reservation.release()
            await self._check_repeated(run, terms)
            return
        except BaseException:
            reservation.release()
            raise
        reservation.start()
        count_start(run.pattern, run.agent, run.task, run.tenant)

    async def _check_repeated(self, run: NewRun, terms: RunTerms) -> None:
        memo = await (await self.client.get_workflow_handle(run.workflow_id).describe()).memo()
        if memo.get(FINGERPRINT_MEMO) != (terms.memo or {})[FINGERPRINT_MEMO]:
            reason = f"another message with this id started the run {run.run_id}: every message needs its own id"
            raise InvalidEventError([("", reason)])

    async def _build(self, prepared: MessageRun) -> tuple[RunInput, RunTerms]:
        run_input, terms = await self._build_pattern(prepared)
        # The query is no option of every pattern.
        own = fingerprint(prepared.run.options) + hashlib.sha256((prepared.query or "").encode()).hexdigest()
        return run_input, replace(terms, memo={**(terms.memo or {}), FINGERPRINT_MEMO: own})

    async def _build_pattern(self, prepared: MessageRun) -> tuple[RunInput, RunTerms]:
        run, options = prepared.run, prepared.run.options
        data, fan_out = options.data if isinstance(options, HybridRequest) else {}, None
        if isinstance(options, JobRequest):
            takes_batches = self.config.agents[run.agent].takes_batches(options.task)
            data, fan_out = split_job(options, takes_batches=takes_batches)
        common = RunInput(
            agent=run.agent,
            request=AgentRequest(
                run_id=run.run_id, task=run.task, query=prepared.query, data=data, params=options.params
            ),
            timeout=options.timeout,
            request_context=RequestContext(),
            target=self.config.workflow_targets.get(run.agent),
            publish_interaction=self.config.interactions.enabled,
            reply=prepared.reply,
            limits=build_limits(options.max_tokens, options.max_cost),
        )
        match options:
            case JobRequest():
                job = JobInput(**dict(common), fan_out=fan_out)
                return job, RunTerms(RunQueue.BATCH, memo=job.memo)
            case AnalyzeRequest():
                document, sealed = seal_document(self.sealer, run.workflow_id, options.document)
                run_input: RunInput = AnalysisInput(**dict(common), document=document, sealed_document_url=sealed)
                return run_input, RunTerms(RunQueue.INTERACTIVE)
            case HybridRequest():
                estimate = await self.durations.estimate(TaskKind(run.tenant, run.agent, run.task), None)
                routing = choose_route(estimate, self.config.agents[run.agent].hybrid_threshold, stream=False)
                terms = RunTerms(QUEUE_OF_ROUTE[routing.chosen], memo={ROUTING_MEMO: routing})
                return HybridInput(**dict(common), routing=routing), terms
        return common, RunTerms(RunQueue.INTERACTIVE)


def _build_options(start: StartConfig, agent: str, work: Any) -> MessageRequest:
    """Returns the request that a client of the pattern would send. Text is the query, or an analysis's document."""
    common: Mapping[str, Any] = {
        "agent": agent,
        "timeout": start.timeout,
        "max_tokens": start.max_tokens,
        "max_cost": start.max_cost,
    }
    data = work if isinstance(work, dict) else {"items": work} if isinstance(work, list) else {}
    if not isinstance(work, dict | list | str):
        raise InvalidEventError([(start.source, "must be an object, a list or text")])
    try:
        match start.pattern:
            case MessagePattern.QUEUE:
                job = JobRequest.model_validate({**common, "task": start.task, "data": data})
                build_fan_out(job, takes_batches=False)
                return job
            case MessagePattern.POLLING:
                return TaskRequest.model_validate({**common, "task": start.task, "params": data})
            case MessagePattern.ANALYZE:
                document = {"document": {"text": work} if isinstance(work, str) else work}
                task = {"task": start.task} if start.task else {}
                return AnalyzeRequest.model_validate({**common, **document, **task})
        query = {"query": work} if isinstance(work, str) else {}
        return HybridRequest.model_validate({**common, **query, "task": start.task or _QUERY_TASK, "data": data})
    except ValidationError as error:
        mistakes = error.errors(include_input=False)[:_MAX_MISTAKES]
        found = [("".join(f"/{part}" for part in one["loc"])[:200], one["msg"]) for one in mistakes]
        raise InvalidEventError(found) from None
    except InvalidJobError as error:
        raise InvalidEventError([(error.pointer, str(error))]) from None


def _check_text(value: Any, what: str, max_bytes: int) -> str:
    """Returns what a sender names; empty if it names nothing. Raises InvalidEventError."""
    if value is None or value is MISSING:
        return ""
    if not isinstance(value, str) or not value.isprintable() or len(value.encode(errors="replace")) > max_bytes:
        raise InvalidEventError([("", f"{what} must be printable text of at most {max_bytes} bytes")])
    return value
