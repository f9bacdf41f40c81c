"""Usage of the jobs in this process, summed over their chunks."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sevenfold.contracts.agents.usage import NO_USAGE, UsageTotals, sum_usage


@dataclass
class _Job:
    """`running`: the usage of the chunks that run here; `ended`: of those that have ended here since."""

    running: dict[int, UsageTotals] = field(default_factory=dict)
    ended: UsageTotals = NO_USAGE


class ChunkSpending:
    """One chunk's view of its job: `used` is what the whole job has used, as far as this process knows."""

    def __init__(self, job: _Job, offset: int, used_before: UsageTotals) -> None:
        self._job = job
        self._offset = offset
        # What has ended here before the chunk was scheduled is in `used_before`.
        self._base = used_before.subtract(job.ended)

    def add(self, usage: UsageTotals) -> None:
        """Counts one call of the chunk, also one whose cleanup outlasts the chunk."""
        if self._offset in self._job.running:
            self._job.running[self._offset] = self._job.running[self._offset].add(usage)
        else:
            self._job.ended = self._job.ended.add(usage)

    def used(self) -> UsageTotals:
        """Returns what the job has used."""
        return self._base.add(self._job.ended).add(sum_usage(self._job.running.values()))


class JobSpending:
    """The jobs whose chunks run in this process. Chunks of other processes are known when they have ended."""

    def __init__(self) -> None:
        self._jobs: defaultdict[str, _Job] = defaultdict(_Job)

    @contextmanager
    def chunk(self, run_id: str, offset: int, used_before: UsageTotals, own: UsageTotals) -> Iterator[ChunkSpending]:
        """The spending of a chunk while the block runs. `used_before`: by the chunks that had ended when it was
        scheduled; `own`: by its earlier attempts.
        """
        job = self._jobs[run_id]
        job.running[offset] = own
        try:
            yield ChunkSpending(job, offset, used_before)
        finally:
            job.ended = job.ended.add(job.running.pop(offset))
            if not job.running:
                self._jobs.pop(run_id, None)
