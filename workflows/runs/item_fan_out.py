"""Fan-out of a job's items: one activity per chunk, a few chunks in parallel."""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, is_cancelled_exception

from sevenfold.activities.runs.item_chunks import ItemChunks
from sevenfold.contracts.agents.errors import ErrorCode
from sevenfold.contracts.agents.interface import Progress
from sevenfold.contracts.runs.chunks import ChunkInput, ChunkSummary, chunk_id
from sevenfold.contracts.runs.jobs import FanOut, ItemCounts, JobInput
from sevenfold.contracts.runs.run import COMPLETED_MEMO, DEADLINE_GRACE, FAILED_MEMO, RunError
from sevenfold.workflows.runs.failures import deadline_failure, to_application_error, to_run_error

_HEARTBEAT_TIMEOUT = timedelta(seconds=10)

# One process handles a chunk, so parallel chunks use several workers.
_CONCURRENCY_PER_PIPELINE = 25

# Each heartbeat carries all results of its chunk, hence the small chunk. A history of 250 chunks has about 1,800
# events: it loads quickly and stays far below Temporal's limit of 51,200.
_MAX_CHUNK = 250
_MAX_CHUNKS = 250


def chunk_size(total: int, pipelines: int) -> int:
    """Returns the number of items per activity."""
    return max(min(_MAX_CHUNK, math.ceil(total / pipelines)), math.ceil(total / _MAX_CHUNKS), 1)


class ItemFanOut:
    """The items of one job and their counts. Every chunk enforces the deadline; its end is progress."""

    def __init__(self, job: JobInput, fan_out: FanOut, report_progress: Callable[[Progress], None]) -> None:
        self._job = job
        self._report_progress = report_progress
        self._fan_out = fan_out
        self._deadline = workflow.info().workflow_start_time + timedelta(seconds=job.timeout)
        self.counts = ItemCounts()
        self._is_limit_reached = False
        self._pipeline_count = math.ceil(fan_out.concurrency / _CONCURRENCY_PER_PIPELINE)
        size = chunk_size(len(fan_out.items), self._pipeline_count)
        self._offsets = deque(range(0, len(fan_out.items), size))
        self._size = size

    async def run(self) -> ItemCounts:
        """Returns when every item has a result. Raises ApplicationError with an ErrorCode as its type if more than
        `maxFailures` items failed or the deadline passed.
        """
        concurrency = self._fan_out.concurrency
        shares = [
            concurrency // self._pipeline_count + (number < concurrency % self._pipeline_count)
            for number in range(self._pipeline_count)
        ]
        pipelines = [asyncio.create_task(self._run_pipeline(share)) for share in shares]
        try:
            done, _ = await workflow.wait(pipelines, return_when=asyncio.FIRST_EXCEPTION)
            for pipeline in done:
                pipeline.result()
        except (Exception, asyncio.CancelledError):  # Without an exception all pipelines have completed.
            self._offsets.clear()
            for pipeline in pipelines:
                pipeline.cancel()
            # Each pipeline still counts the results of its cancelled chunk.
            await asyncio.gather(*pipelines, return_exceptions=True)
            self._check_stopped()
            raise
        if workflow.now() > self._deadline + DEADLINE_GRACE:
            raise deadline_failure(self._job.timeout)
        if self.counts.completed + self.counts.failed != len(self._fan_out.items):
            raise to_application_error(
                RunError(
                    code=ErrorCode.INTERNAL,
                    detail=f"Some of {len(self._fan_out.items)} items have no result: {self.counts}.",
                )
            )
        return self.counts

    async def _run_pipeline(self, concurrency: int) -> None:
        while self._offsets:
            offset = self._offsets.popleft()
            try:
                summary = await self._process_chunk(offset, concurrency)
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                raise to_application_error(to_run_error(error, self._job.timeout)) from error
            self.counts = self.counts.add(summary.counts)
            if not self._is_complete or summary.was_cancelled:  # A complete run has its counts in the result.
                workflow.upsert_memo({COMPLETED_MEMO: self.counts.completed, FAILED_MEMO: self.counts.failed})
            self._show_progress()
            if summary.was_cancelled:
                raise asyncio.CancelledError
            self._is_limit_reached = self._is_limit_reached or summary.limit_reached
            self._check_stopped()

    async def _process_chunk(self, offset: int, concurrency: int) -> ChunkSummary:
        job = self._job
        items = self._fan_out.items[offset : offset + self._size]
        call = ChunkInput(
            agent=job.agent,
            request=job.request,
            key=self._fan_out.key,
            offset=offset,
            items=items,
            concurrency=concurrency,
            max_failures=self._remaining_failures(),
            deadline=self._deadline,
            request_context=job.request_context,
            key_id=job.key_id,
            limits=job.limits,
            used_before=self.counts.usage,
        )
        summary: ChunkSummary = await workflow.execute_activity(
            ItemChunks.process_chunk.__name__,
            call,
            result_type=ChunkSummary,  # The API reads the results from the history.
            activity_id=chunk_id(offset),
            summary=f"items {offset} to {offset + len(items) - 1}",
            schedule_to_close_timeout=max(self._deadline - workflow.now(), timedelta(milliseconds=1)),
            heartbeat_timeout=_HEARTBEAT_TIMEOUT,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            # Retried until the job's deadline: an accepted job survives any outage.
            retry_policy=RetryPolicy(maximum_interval=timedelta(seconds=30)),
        )
        return summary

    @property
    def _is_complete(self) -> bool:
        all_done = self.counts.completed + self.counts.failed == len(self._fan_out.items)
        return all_done and not self._too_many_failed

    @property
    def _too_many_failed(self) -> bool:
        max_failures = self._fan_out.max_failures
        return max_failures is not None and self.counts.failed > max_failures

    def _remaining_failures(self) -> int | None:
        max_failures = self._fan_out.max_failures
        return None if max_failures is None else max(0, max_failures - self.counts.failed)

    def _check_stopped(self) -> None:
        """Raises ApplicationError, with the counts so far, if the job is not to continue."""
        if self._is_limit_reached:
            used = self.counts.usage
            raise to_application_error(
                RunError(
                    code=ErrorCode.RUN_LIMIT_REACHED,
                    detail=f"The job has used {used.tokens:,} tokens and was stopped by its maxTokens or maxCost. "
                    f"{self.counts.completed} items completed; all results so far are kept.",
                    usage=used,
                )
            )
        if self._too_many_failed:
            raise to_application_error(
                RunError(
                    code=ErrorCode.TOO_MANY_FAILURES,
                    detail=f"{self.counts.failed} items failed, more than maxFailures={self._fan_out.max_failures}. "
                    f"{self.counts.completed} items completed; all results so far are kept.",
                )
            )

    def _show_progress(self) -> None:
        done, total = self.counts.completed + self.counts.failed, len(self._fan_out.items)
        self._report_progress(Progress(percent=100 * done / total, note=f"{done} of {total} items"))
        workflow.set_current_details(
            f"Agent `{self._job.agent}`, task `{self._job.request.task}`: {done} of {total} items "
            f"done, {self.counts.failed} of them failed."
        )
