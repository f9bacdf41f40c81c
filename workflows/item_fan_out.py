"""Works through a job's items: chunks, each an activity, in a few lanes beside each other."""

import asyncio
import math
from collections import deque
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, is_cancelled_exception

from activities.item_chunks import ItemChunks
from contracts.chunks import ChunkCall, ChunkEnd, chunk_id
from contracts.jobs import Counts, FanOut, JobInput
from contracts.runs import DEADLINE_GRACE, RunError
from contracts.verdicts import Verdict
from workflows.failures import deadline_exceeded, failure_of, run_error

_HEARTBEAT_TIMEOUT = timedelta(seconds=10)

# One process works on a chunk, so several chunks at once use several workers.
_CONCURRENCY_PER_LANE = 25

# A chunk's results travel in each of its heartbeats, so it is kept small; and a history of so many chunks has about
# 1,800 events, which is quick to load and far from Temporal's limit of 51,200.
_LARGEST_CHUNK = 250
_MOST_CHUNKS = 250


def chunk_size(total: int, lanes: int) -> int:
    """How many items go into one activity."""
    return max(min(_LARGEST_CHUNK, math.ceil(total / lanes)), math.ceil(total / _MOST_CHUNKS), 1)


class ItemFanOut:
    """The items of one job and how far they are. `deadline` is enforced by every chunk."""

    def __init__(self, job: JobInput, fan_out: FanOut) -> None:
        self._job = job
        self._fan_out = fan_out
        self._deadline = workflow.info().workflow_start_time + timedelta(seconds=job.timeout)
        self.counts = Counts()
        self._lanes = math.ceil(fan_out.concurrency / _CONCURRENCY_PER_LANE)
        size = chunk_size(len(fan_out.items), self._lanes)
        self._offsets = deque(range(0, len(fan_out.items), size))
        self._size = size

    async def work(self) -> Counts:
        """Ends when every item has a result. Raises a verdict when too many have failed or the time is over."""
        most = self._fan_out.concurrency
        shares = [most // self._lanes + (number < most % self._lanes) for number in range(self._lanes)]
        lanes = [asyncio.create_task(self._lane(share)) for share in shares]
        try:
            done, _ = await workflow.wait(lanes, return_when=asyncio.FIRST_EXCEPTION)
            for lane in done:
                lane.result()
        except (Exception, asyncio.CancelledError):  # all is done otherwise
            self._offsets.clear()
            for lane in lanes:
                lane.cancel()
            # each still counts what its chunk had done
            await asyncio.gather(*lanes, return_exceptions=True)
            raise
        if workflow.now() > self._deadline + DEADLINE_GRACE:
            raise deadline_exceeded(self._job.timeout)
        if self.counts.completed + self.counts.failed != len(self._fan_out.items):
            raise failure_of(RunError(verdict=Verdict.INTERNAL, detail=f"Some items have no result: {self.counts}."))
        return self.counts

    async def _lane(self, concurrency: int) -> None:
        while self._offsets:
            offset = self._offsets.popleft()
            try:
                end = await self._chunk(offset, concurrency)
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                raise failure_of(run_error(error, self._job.timeout)) from error
            self.counts = self.counts.plus(end.counts)
            if not self._complete or end.stopped:  # else the run's result says it
                workflow.upsert_memo({"completed": self.counts.completed, "failed": self.counts.failed})
            self._tell()
            if end.stopped:
                raise asyncio.CancelledError
            self._check_failures()

    async def _chunk(self, offset: int, concurrency: int) -> ChunkEnd:
        job = self._job
        items = self._fan_out.items[offset : offset + self._size]
        call = ChunkCall(
            agent=job.agent,
            request=job.request,
            key=self._fan_out.key,
            offset=offset,
            items=items,
            concurrency=concurrency,
            failures_allowed=self._failures_allowed(),
            deadline=self._deadline,
            origin=job.origin,
        )
        end: ChunkEnd = await workflow.execute_activity(
            ItemChunks.process_chunk.__name__,
            call,
            result_type=ChunkEnd,  # the results are read from the history, by whom they concern
            activity_id=chunk_id(offset),
            summary=f"items {offset} to {offset + len(items) - 1}",
            schedule_to_close_timeout=max(self._deadline - workflow.now(), timedelta(milliseconds=1)),
            heartbeat_timeout=_HEARTBEAT_TIMEOUT,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            # until the job's time is over: an accepted job survives anything
            retry_policy=RetryPolicy(maximum_interval=timedelta(seconds=30)),
        )
        return end

    @property
    def _complete(self) -> bool:
        all_done = self.counts.completed + self.counts.failed == len(self._fan_out.items)
        return all_done and not self._too_many_failed

    @property
    def _too_many_failed(self) -> bool:
        most = self._fan_out.max_failures
        return most is not None and self.counts.failed > most

    def _failures_allowed(self) -> int | None:
        most = self._fan_out.max_failures
        return None if most is None else max(0, most - self.counts.failed)

    def _check_failures(self) -> None:
        if self._too_many_failed:
            raise failure_of(
                RunError(
                    verdict=Verdict.TOO_MANY_FAILURES,
                    detail=f"{self.counts.failed} items failed, and maxFailures is {self._fan_out.max_failures}. "
                    f"{self.counts.completed} were completed; all results so far are kept.",
                )
            )

    def _tell(self) -> None:
        done = self.counts.completed + self.counts.failed
        workflow.set_current_details(
            f"Agent `{self._job.agent}`, task `{self._job.request.task}`: {done} of {len(self._fan_out.items)} items "
            f"done, {self.counts.failed} of them failed."
        )
