"""The activity that works on a chunk of a job's items.

An item keeps its slot until its result is recorded by a heartbeat that the server has confirmed. So a worker that is
killed repeats at most the items that were in flight, and a retry goes on from the recorded results.
"""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

from pydantic import JsonValue
from temporalio import activity
from temporalio.client import AsyncActivityCancelledError, AsyncActivityHandle, Client
from temporalio.service import RPCError, RPCStatusCode

from activities.calls_in_flight import CallInFlight
from activities.failures import application_error, as_agent_error
from adapters.agents.registry import AgentRegistry
from contracts.agent import Agent
from contracts.chunks import ChunkCall, ChunkOutcome
from contracts.jobs import Counts, ItemResult
from contracts.runs import RunError
from contracts.verdicts import AgentUnavailable

ITEM_ATTEMPTS = 3
_FIRST_PAUSE = 0.5

# Without news: well under the heartbeat timeout.
_HEARTBEAT_SECONDS = 1.0


class ItemChunks:
    """Holds the worker's agents and its client, whose heartbeats can be awaited."""

    def __init__(self, agents: AgentRegistry, client: Client) -> None:
        self._agents = agents
        self._client = client

    @activity.defn
    async def process_chunk(self, chunk: ChunkCall) -> ChunkOutcome:
        """Calls the agent for every item that has no result yet; a failed item's error is its result.

        A cancellation ends it with what is done, marked as stopped.
        """
        info = activity.info()
        agent = self._agents.get(chunk.agent)
        if agent is None:
            unknown = AgentUnavailable(f"The worker that took this job has no agent named {chunk.agent}.")
            raise application_error(unknown, info.attempt)
        handle = self._client.get_async_activity_handle(task_token=info.task_token)
        ledger = Ledger(handle, _recorded(info))
        stopped = False
        try:
            await _work_through(chunk, agent, ledger)
        except asyncio.CancelledError:
            stopped = True
        except BaseExceptionGroup as group:
            if group.subgroup(_NotWantedError) is None:
                raise
            stopped = True
        if stopped and activity.is_worker_shutdown():
            raise asyncio.CancelledError  # a retry elsewhere goes on from the ledger
        results = ledger.in_order()
        return ChunkOutcome(counts=Counts.of(results), stopped=stopped, results=results)


def _recorded(info: activity.Info) -> list[ItemResult]:
    """What the attempt before this one had recorded."""
    details = list(info.heartbeat_details)
    return [ItemResult.model_validate(result) for result in details[1]] if len(details) > 1 else []


class _NotWantedError(Exception):
    """The server answered a heartbeat by saying that this chunk shall end."""


class Ledger:
    """The results so far, kept in the activity's heartbeat: first their counts, then all of them."""

    def __init__(self, handle: AsyncActivityHandle, recorded: list[ItemResult]) -> None:
        self._handle = handle
        self._results = {result.index: result for result in recorded}
        self._waiting: list[asyncio.Future[None]] = []
        self._news = asyncio.Event()

    def in_order(self) -> list[ItemResult]:
        """All results by index."""
        return [self._results[index] for index in sorted(self._results)]

    def counts(self) -> Counts:
        """How many there are."""
        return Counts.of(list(self._results.values()))

    def has(self, index: int) -> bool:
        """Whether that item is done."""
        return index in self._results

    async def record(self, result: ItemResult) -> None:
        """Returns when the server has the result."""
        self._results[result.index] = result
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(confirmed)
        self._news.set()
        await confirmed

    async def keep(self) -> None:
        """Heartbeats whenever there is news, and once a second; one heartbeat confirms all that waited for it."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), _HEARTBEAT_SECONDS)
            self._news.clear()
            confirmed, self._waiting = self._waiting, []
            await self._heartbeat()
            for one in confirmed:
                if not one.done():
                    one.set_result(None)

    async def _heartbeat(self) -> None:
        while True:
            try:
                await self._handle.heartbeat(self.counts(), self.in_order(), rpc_timeout=timedelta(seconds=5))
                return
            except AsyncActivityCancelledError as error:
                raise _NotWantedError from error
            except RPCError as error:
                if error.status == RPCStatusCode.NOT_FOUND:  # timed out, or its run has ended
                    raise _NotWantedError from error
                await asyncio.sleep(_HEARTBEAT_SECONDS)


async def _work_through(chunk: ChunkCall, agent: Agent, ledger: Ledger) -> None:
    """Keeps as many items in work as the chunk may, until all are done or too many have failed."""
    slots = asyncio.Semaphore(chunk.concurrency)

    async def one(index: int, item: JsonValue) -> None:
        try:
            await ledger.record(await _item_result(chunk, agent, index, item))
        finally:
            slots.release()

    async with asyncio.TaskGroup() as keeping:
        keeper = keeping.create_task(ledger.keep())
        async with asyncio.TaskGroup() as working:
            for index, item in _remaining(chunk, ledger):
                await slots.acquire()
                if _too_many_failed(chunk, ledger):
                    break
                working.create_task(one(index, item))
        keeper.cancel()


def _remaining(chunk: ChunkCall, ledger: Ledger) -> Iterator[tuple[int, JsonValue]]:
    for index, item in enumerate(chunk.items, chunk.offset):
        if not ledger.has(index):
            yield index, item


def _too_many_failed(chunk: ChunkCall, ledger: Ledger) -> bool:
    return chunk.failures_allowed is not None and ledger.counts().failed > chunk.failures_allowed


async def _item_result(chunk: ChunkCall, agent: Agent, index: int, item: JsonValue) -> ItemResult:
    """Asks the agent for one item: its request is the job's, with a list of this one item."""
    data = {**chunk.request.data, chunk.key: [item]}
    for attempt in range(1, ITEM_ATTEMPTS + 1):
        request = chunk.request.model_copy(update={"data": data, "attempt": attempt})
        call = CallInFlight(agent, request, chunk.deadline)
        try:
            return ItemResult(index=index, reply=await call.done)
        except asyncio.CancelledError:
            await call.cancel()
            raise
        except Exception as error:
            failed = as_agent_error(error)
            if attempt == ITEM_ATTEMPTS or not failed.verdict.retryable:
                break
        await asyncio.sleep(failed.retry_after or _FIRST_PAUSE * 2 ** (attempt - 1))
    detail = RunError(verdict=failed.verdict, detail=failed.detail, attempts=attempt, pointer=failed.pointer)
    return ItemResult(index=index, error=detail)
