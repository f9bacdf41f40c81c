"""Jobs as the API shows them: their progress, and their items' results as lines of NDJSON."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field
from temporalio.client import WorkflowExecutionDescription

from sevenfold.api.dependencies import API_PREFIX
from sevenfold.api.http.problems import not_found
from sevenfold.api.runs.job_items import count_items, is_paused, load_results
from sevenfold.api.runs.reader import RunReader
from sevenfold.api.runs.views import Run
from sevenfold.contracts.payload import JsonObject, Payload
from sevenfold.contracts.runs.jobs import ItemCounts, ItemResult
from sevenfold.contracts.runs.run import ID_PREFIXES, TOTAL_MEMO, Pattern, RunError, RunStatus, Waiting

# A job's own response holds this many items' results; more are paged.
_INLINE_ITEMS = 100


class JobProgress(Payload):
    """How many items have ended, of `total`."""

    completed: int
    failed: int
    total: int
    percent: Annotated[int, Field(ge=0, le=100)]


class JobState(Payload):
    """A job as it is now."""

    job_id: str
    status: RunStatus
    progress: JobProgress
    waiting: Waiting | None = None
    result: JsonObject | None = None
    error: RunError | None = None


class ItemLine(Payload):
    """One item's result as a line of NDJSON."""

    index: int
    status: RunStatus
    result: JsonObject | None = None
    error: RunError | None = None


@dataclass(frozen=True)
class JobReader:
    """Reads jobs by the reader of all runs."""

    runs: RunReader

    async def find(self, tenant: str, job_id: str) -> WorkflowExecutionDescription:
        """Describes a job. Raises 404 if there is none with this id."""
        if not job_id.startswith(ID_PREFIXES[Pattern.QUEUE] + "_"):
            raise not_found("This job")
        return await self.runs.find(tenant, job_id)

    async def load(self, description: WorkflowExecutionDescription) -> JobState:
        """Returns a job with its progress, and its result once it has ended."""
        run = await self.runs.load(description)
        total = (await description.memo()).get(TOTAL_MEMO)
        if total is None:
            progress, result = _build_whole_progress(run), run.result.job_result if run.result else None
        else:
            progress = await self._load_items_progress(description, run, total)
            result = await self._load_items_result(description, run, total) if run.result else None
        return JobState(
            job_id=run.id,
            status=run.status,
            progress=progress,
            waiting=run.waiting,
            result=result,
            error=run.error,
        )

    async def load_lines(self, description: WorkflowExecutionDescription, indexes: range) -> list[ItemLine]:
        """Returns the lines of these items. While items are being processed, stops at the first without a result; of
        a job that has ended or is paused, such items have a line with their status.
        """
        results = await load_results(self.runs.client, description, indexes.start, len(indexes))
        missing = RunStatus.CANCELLED if description.close_time is not None else None
        if missing is None and is_paused(self.runs.client, description):
            missing = RunStatus.QUEUED
        lines: list[ItemLine] = []
        for index in indexes:
            if index in results:
                lines.append(_to_line(results[index]))
            elif missing is not None:
                lines.append(ItemLine(index=index, status=missing))
            else:
                break
        return lines

    async def _load_items_progress(
        self, description: WorkflowExecutionDescription, run: Run, total: int
    ) -> JobProgress:
        totals = run.result.data if run.result else None
        if totals:
            ended = ItemCounts.model_validate(totals)
        elif description.close_time is not None:  # the memo's counts may lack the items of its last moments
            results = await load_results(self.runs.client, description, 0, total)
            ended = ItemCounts.from_results(list(results.values()))
        else:
            ended = await count_items(self.runs.client, description)
        percent = 100 * (ended.completed + ended.failed) // total
        return JobProgress(completed=ended.completed, failed=ended.failed, total=total, percent=percent)

    async def _load_items_result(self, description: WorkflowExecutionDescription, run: Run, total: int) -> JsonObject:
        result: dict[str, Any] = {**run.result.job_result} if run.result else {}
        result["results"] = f"{API_PREFIX}/jobs/{run.id}/results"
        if total <= _INLINE_ITEMS:
            items = await self.load_lines(description, range(total))
            result["items"] = [item.model_dump(mode="json", by_alias=True, exclude_none=True) for item in items]
        return result


def _build_whole_progress(run: Run) -> JobProgress:
    done = run.status is RunStatus.COMPLETED
    percent = 100 if done else int(run.progress.percent) if run.progress else 0
    return JobProgress(completed=int(done), failed=int(run.status is RunStatus.FAILED), total=1, percent=percent)


def _to_line(item: ItemResult) -> ItemLine:
    if item.reply is None:
        return ItemLine(index=item.index, status=RunStatus.FAILED, error=item.error)
    reply = item.reply
    body: JsonObject = {"response": reply.response, "confidence": reply.confidence}
    result = reply.data if reply.data is not None else body
    return ItemLine(index=item.index, status=RunStatus.COMPLETED, result=result)
