"""The activity that works on a chunk of a job's items.

An item keeps its slot until its result is recorded by a heartbeat that the server has confirmed. So a worker that is
killed repeats at most the items that were in flight, and a retry goes on from the recorded results.
"""

import asyncio
from collections.abc import Iterator

from pydantic import JsonValue
from temporalio import activity
from temporalio.client import Client

from activities.call_in_flight import CallInFlight
from activities.failures import agent_error, application_error, in_time
from activities.interruptions import raise_unless_cancel_requested
from activities.item_ledger import ChunkCancelledError, Ledger, recorded
from adapters.agents.gate import Gate
from adapters.agents.registry import AgentRegistry
from contracts.agent import Agent
from contracts.chunks import ChunkCall, ChunkOutcome
from contracts.jobs import ItemResult
from contracts.runs import RunError
from contracts.verdicts import AgentFailed, AgentUnavailable, CircuitOpen

ITEM_ATTEMPTS = 3
_FIRST_PAUSE = 0.5


class ItemChunks:
    """Holds the worker's agents, the gate to them, and its client, whose heartbeats can be awaited."""

    def __init__(self, agents: AgentRegistry, gate: Gate, client: Client) -> None:
        self._agents = agents
        self._gate = gate
        self._client = client

    @activity.defn
    async def process_chunk(self, chunk: ChunkCall) -> ChunkOutcome:
        """Calls the agent for every item that has no result yet; a failed item's error is its result.

        A requested cancellation ends it with what is done, marked as stopped. A pause, a reset or the end of the
        worker fail the attempt, as does an agent whose circuit is open: the next attempt goes on from what is done.
        """
        info = activity.info()
        agent = self._agents.get(chunk.agent)
        if agent is None:
            unknown = AgentUnavailable(f"The worker that took this job has no agent named {chunk.agent}.")
            raise application_error(unknown, info.attempt)
        handle = self._client.get_async_activity_handle(task_token=info.task_token)
        done = recorded(info)
        more_than_slots = len(chunk.items) - len(done) > chunk.concurrency
        ledger = Ledger(handle, done, confirms=more_than_slots)
        stopped = False
        try:
            refusal = await self._work_through(chunk, agent, ledger)
            if refusal is not None:
                await ledger.tell()
                raise application_error(in_time(refusal, chunk.origin.context(chunk.deadline)), info.attempt)
        except (asyncio.CancelledError, ChunkCancelledError, BaseExceptionGroup) as error:
            raise_unless_cancel_requested(_cancellation(error))
            stopped = True
        if not stopped:
            _check_complete(chunk, ledger, info.attempt)
        return ChunkOutcome(counts=ledger.counts, stopped=stopped, results=ledger.in_order())

    async def _work_through(self, chunk: ChunkCall, agent: Agent, ledger: Ledger) -> CircuitOpen | None:
        """Keeps as many items in work as the chunk may, until all are done, or too many have failed, or the agent is
        left alone: then the items that are under way still end, and the refusal is returned.
        """
        slots = asyncio.Semaphore(chunk.concurrency)
        refusal: CircuitOpen | None = None

        async def one(index: int, item: JsonValue) -> None:
            nonlocal refusal
            try:
                await ledger.record(await self._item_result(chunk, agent, index, item))
            except CircuitOpen as refused:
                refusal = refused
            finally:
                slots.release()

        async with asyncio.TaskGroup() as keeping:
            keeper = keeping.create_task(ledger.keep())
            async with asyncio.TaskGroup() as working:
                for index, item in _remaining(chunk, ledger):
                    await slots.acquire()
                    if refusal is not None or _too_many_failed(chunk, ledger):
                        break
                    working.create_task(one(index, item))
            keeper.cancel()
        return refusal

    async def _item_result(self, chunk: ChunkCall, agent: Agent, index: int, item: JsonValue) -> ItemResult:
        """Asks the agent for one item: its request is the job's, with a list of this one item. Raises CircuitOpen."""
        data = {**chunk.request.data, chunk.key: [item]}
        for attempt in range(1, ITEM_ATTEMPTS + 1):
            passage = await self._gate.passed(chunk.agent, f"{chunk.request.run_id}#{index}", None)
            request = chunk.request.model_copy(update={"data": data, "attempt": attempt})
            call = CallInFlight(agent, request, chunk.origin.context(chunk.deadline))
            call.done.add_done_callback(passage.over)
            try:
                await asyncio.wait({call.done})  # which would not cancel the call by itself
            except asyncio.CancelledError:
                await call.cancel()
                raise
            try:
                return ItemResult(index=index, reply=call.done.result())
            except Exception as error:
                failed = agent_error(error)
                if attempt == ITEM_ATTEMPTS or not failed.verdict.retryable:
                    break
            pause = failed.retry_after or _FIRST_PAUSE * 2 ** (attempt - 1)
            if pause >= chunk.origin.context(chunk.deadline).remaining_seconds():
                break
            await asyncio.sleep(pause)
        detail = RunError(verdict=failed.verdict, detail=failed.detail, attempts=attempt, pointer=failed.pointer)
        return ItemResult(index=index, error=detail)


def _remaining(chunk: ChunkCall, ledger: Ledger) -> Iterator[tuple[int, JsonValue]]:
    for index, item in enumerate(chunk.items, chunk.offset):
        if not ledger.has(index):
            yield index, item


def _too_many_failed(chunk: ChunkCall, ledger: Ledger) -> bool:
    return chunk.failures_allowed is not None and ledger.counts.failed > chunk.failures_allowed


def _cancellation(error: BaseException) -> activity.ActivityCancellationDetails | None:
    """Why the attempt was cancelled: by the server's answer to a heartbeat, else by what the SDK knows."""
    if isinstance(error, BaseExceptionGroup):
        group = error.subgroup(ChunkCancelledError)
        if group is None:
            raise error
        return _cancellation(group.exceptions[0])
    return error.details if isinstance(error, ChunkCancelledError) else activity.cancellation_details()


def _check_complete(chunk: ChunkCall, ledger: Ledger, attempt: int) -> None:
    """No chunk is done with fewer results than items, unless too many of them have failed."""
    missing = sum(1 for _ in _remaining(chunk, ledger))
    if missing and not _too_many_failed(chunk, ledger):
        raise application_error(AgentFailed(f"{missing} items have no result."), attempt)
