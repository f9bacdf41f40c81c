"""The activity that processes a chunk of a job's items.

An item keeps its slot until the server has confirmed a heartbeat with its result. So a killed worker repeats at most
the items in flight, and a retry continues from the recorded results.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from pydantic import JsonValue
from temporalio import activity
from temporalio.client import Client

from sevenfold.activities.identity import current_tenant
from sevenfold.activities.runs.call_meter import CallMeter
from sevenfold.activities.runs.call_span import start_call_span
from sevenfold.activities.runs.cancellation import raise_unless_cancel_requested
from sevenfold.activities.runs.chunk_checkpoint import (
    ChunkCancelledError,
    ChunkCheckpoint,
    ItemSteps,
    load_recorded_results,
    load_recorded_steps,
    load_recorded_usage,
)
from sevenfold.activities.runs.durable_call import DurableTerms, RunDurableCall
from sevenfold.activities.runs.failures import FailureRules, clamp_retry_after, to_application_error
from sevenfold.activities.runs.job_spending import ChunkSpending, JobSpending
from sevenfold.activities.runs.running_call import CallInFlight
from sevenfold.adapters.agents.admission.admission import AdmissionControl
from sevenfold.adapters.agents.registry import AgentRegistry
from sevenfold.adapters.metrics.runs import count_item, count_retry
from sevenfold.contracts.agents.errors import (
    AgentError,
    AgentFailed,
    AgentUnavailable,
    CircuitOpen,
    QuotaExceeded,
    RunLimitReached,
)
from sevenfold.contracts.agents.interface import Agent, Reply
from sevenfold.contracts.runs.chunks import ChunkInput, ChunkOutcome
from sevenfold.contracts.runs.jobs import ItemResult
from sevenfold.contracts.runs.run import RunError

ITEM_ATTEMPTS = 3
_FIRST_PAUSE = 0.5


class ItemChunks:
    """Processes chunks with the worker's agents. Its own client sends the heartbeats, because those of the SDK cannot
    be awaited.
    """

    def __init__(
        self,
        agents: AgentRegistry,
        admission: AdmissionControl,
        meter: CallMeter,
        rules: FailureRules,
        client: Client,
    ) -> None:
        self._agents = agents
        self._rules = rules
        self._admission = admission
        self._meter = meter
        self._jobs = JobSpending()
        self._client = client

    @activity.defn(name="process_chunk")
    async def process_chunk(self, chunk: ChunkInput) -> ChunkOutcome:
        """Calls the agent for every item without a result; a failed item's result is its error.

        A requested cancellation returns the results so far with `was_cancelled`, a reached limit with
        `limit_reached`. A pause, a reset, the end of the worker, an open circuit or a budget that is used up fail the
        attempt, and the next attempt continues from the recorded results.
        """
        info = activity.info()
        agent = self._agents.get(chunk.agent)
        if agent is None:
            unknown = AgentUnavailable(
                f"The worker that took this job has no agent {chunk.agent} in its sevenfold.toml."
            )
            raise to_application_error(unknown, info.attempt)
        handle = self._client.get_async_activity_handle(task_token=info.task_token)
        done = load_recorded_results(info)
        more_than_slots = len(chunk.items) - len(done) > chunk.concurrency
        usage = load_recorded_usage(info)
        steps = load_recorded_steps(info)
        checkpoint = ChunkCheckpoint(handle, done, usage, steps, waits_for_confirmation=more_than_slots)
        was_cancelled = limit_reached = False
        try:
            with self._jobs.chunk(chunk.request.run_id, chunk.offset, chunk.used_before, usage) as spending:
                refusal = await self._process_items(chunk, agent, checkpoint, spending)
            limit_reached = isinstance(refusal, RunLimitReached)
            if refusal is not None and not limit_reached:
                await checkpoint.flush()
                raise to_application_error(
                    clamp_retry_after(refusal, chunk.request_context.agent_context(chunk.deadline)), info.attempt
                )
        except (asyncio.CancelledError, ChunkCancelledError, BaseExceptionGroup) as error:
            raise_unless_cancel_requested(_cancellation_details(error))
            was_cancelled = True
        if not (was_cancelled or limit_reached):
            _check_complete(chunk, checkpoint, info.attempt)
        return ChunkOutcome(
            counts=checkpoint.counts,
            was_cancelled=was_cancelled,
            limit_reached=limit_reached,
            results=checkpoint.sorted_results(),
        )

    async def _process_items(
        self, chunk: ChunkInput, agent: Agent, checkpoint: ChunkCheckpoint, spending: ChunkSpending
    ) -> AgentError | None:
        """Processes up to `concurrency` items at once, until all are done, more than `max_failures` failed, or no
        item may start. In the last case the items in flight complete, and the reason is returned: CircuitOpen,
        QuotaExceeded or RunLimitReached.
        """
        slots = asyncio.Semaphore(chunk.concurrency)
        refusal: AgentError | None = None

        async def one(index: int, item: JsonValue) -> None:
            nonlocal refusal
            try:
                result = await self._process_item(_Item(chunk, agent, index, item), checkpoint, spending)
                count_item(chunk.agent, failed=result.error is not None)
                await checkpoint.record(result)
            except (CircuitOpen, QuotaExceeded, RunLimitReached) as refused:
                refusal = refused
            finally:
                slots.release()

        async with asyncio.TaskGroup() as keeping:
            keeper = keeping.create_task(checkpoint.run_heartbeats())
            async with asyncio.TaskGroup() as working:
                for index, item in _remaining(chunk, checkpoint):
                    await slots.acquire()
                    if refusal is not None or _too_many_failed(chunk, checkpoint):
                        break
                    working.create_task(one(index, item))
            keeper.cancel()
        return refusal

    async def _process_item(
        self, item: "_Item", checkpoint: ChunkCheckpoint, chunk_spending: ChunkSpending
    ) -> ItemResult:
        """Calls the agent for one item. Raises CircuitOpen, QuotaExceeded, and RunLimitReached if the job has used
        what it may.
        """
        chunk = item.chunk
        for attempt in range(1, ITEM_ATTEMPTS + 1):
            call = await self._start_call(item, attempt, checkpoint, chunk_spending)
            try:
                await asyncio.wait({call.done})  # `asyncio.wait` does not cancel the call when it is cancelled.
            except asyncio.CancelledError:
                await call.cancel()
                raise
            try:
                return ItemResult(index=item.index, reply=call.done.result())
            except Exception as error:
                failed = self._rules.read(error)
                if isinstance(failed, RunLimitReached):
                    raise failed from None
                if attempt == ITEM_ATTEMPTS or not self._rules.may_retry(failed):
                    break
            pause = failed.retry_after or _FIRST_PAUSE * 2 ** (attempt - 1)
            if pause >= (chunk.deadline - datetime.now(UTC)).total_seconds():
                break
            count_retry(chunk.agent, failed.code)
            await asyncio.sleep(pause)
        detail = RunError(code=failed.code, detail=failed.detail, attempts=attempt, pointer=failed.pointer)
        return ItemResult(index=item.index, error=detail)

    async def _start_call(
        self, item: "_Item", attempt: int, checkpoint: ChunkCheckpoint, chunk_spending: ChunkSpending
    ) -> CallInFlight:
        """Starts an attempt when the limits of the agent permit it: the request is the job's, with a list of this one
        item.
        """
        chunk, tenant = item.chunk, current_tenant()
        spending = self._meter.spending(tenant, chunk.key_id, chunk.agent, chunk.limits, chunk_spending.used)
        spending.check(None)
        call_id = f"{chunk.request.run_id}#{item.index}"
        permit = await self._admission.acquire(chunk.agent, tenant, chunk.key_id, call_id, None)
        try:
            spending.check(None)  # Others may have used the rest while it waited.
        except RunLimitReached:
            permit.release()
            raise
        data = {**chunk.request.data, chunk.key: [item.value]}
        request = chunk.request.model_copy(update={"data": data, "attempt": attempt})
        context = chunk.request_context.agent_context(chunk.deadline, tenant)
        span, context = start_call_span(chunk.agent, item.agent, request, context)
        terms = DurableTerms(f"{request.run_id}.{item.index}", attempt, may_ask=False)
        durable = partial(RunDurableCall, ItemSteps(checkpoint, item.index), terms)
        call = CallInFlight(
            item.agent, request, context, spending=spending, span=span, name=chunk.agent, durable=durable
        )

        def count(done: "asyncio.Task[Reply]") -> None:
            failed = done.cancelled() or done.exception() is not None
            used = spending.totals(call.usage, failed=failed)
            chunk_spending.add(used)
            checkpoint.add_usage(used)

        # Counted before the permit goes to the next item.
        call.done.add_done_callback(count)
        call.done.add_done_callback(permit.on_done)
        return call


@dataclass(frozen=True)
class _Item:
    """An item of a chunk, and the agent that processes it."""

    chunk: ChunkInput
    agent: Agent
    index: int
    value: JsonValue


def _remaining(chunk: ChunkInput, checkpoint: ChunkCheckpoint) -> Iterator[tuple[int, JsonValue]]:
    for index, item in enumerate(chunk.items, chunk.offset):
        if not checkpoint.is_done(index):
            yield index, item


def _too_many_failed(chunk: ChunkInput, checkpoint: ChunkCheckpoint) -> bool:
    return chunk.max_failures is not None and checkpoint.counts.failed > chunk.max_failures


def _cancellation_details(error: BaseException) -> activity.ActivityCancellationDetails | None:
    """Returns why the attempt was cancelled: from the server's response to a heartbeat, else from the SDK."""
    if isinstance(error, BaseExceptionGroup):
        group = error.subgroup(ChunkCancelledError)
        if group is None:
            raise error
        return _cancellation_details(group.exceptions[0])
    return error.details if isinstance(error, ChunkCancelledError) else activity.cancellation_details()


def _check_complete(chunk: ChunkInput, checkpoint: ChunkCheckpoint, attempt: int) -> None:
    """Raises if items have no result although not too many failed."""
    missing = sum(1 for _ in _remaining(chunk, checkpoint))
    if missing and not _too_many_failed(chunk, checkpoint):
        raise to_application_error(AgentFailed(f"{missing} items have no result."), attempt)
