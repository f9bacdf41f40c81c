"""How long an agent's task takes: measured from recent runs, else as configured, else told by its progress."""

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from temporalio.client import Client
from temporalio.service import RPCError

_SAMPLE = 20
_FRESH_SECONDS = 30.0

# Below this a progress says little about the rest.
_TELLING_PERCENT = 5


@dataclass(frozen=True)
class Work:
    """What durations are measured of."""

    tenant: str
    agent: str
    task: str


@dataclass
class Durations:
    """Medians of recent completed runs, through visibility, kept for half a minute. `estimates` are seconds."""

    client: Client
    estimates: Mapping[str, float]
    _known: dict[Work, tuple[float, float | None]] = field(default_factory=dict)
    _per_item: dict[Work, float] = field(default_factory=dict)

    async def typical(self, work: Work) -> float | None:
        """Seconds that such work takes, or None if nobody knows."""
        read_at, median = self._known.get(work, (-math.inf, None))
        if time.monotonic() - read_at >= _FRESH_SECONDS:
            # set first, so that those who ask meanwhile do not all ask visibility
            self._known[work] = (time.monotonic(), median)
            median = await self._measured(work)
            self._known[work] = (time.monotonic(), median)
        return median if median is not None else self.estimates.get(work.agent)

    async def per_item(self, work: Work) -> float | None:
        """Seconds per item of recent jobs with that work; None if none was measured."""
        await self.typical(work)
        return self._per_item.get(work)

    async def _measured(self, work: Work) -> float | None:
        query = (
            f"Tenant = '{work.tenant}' AND Agent = '{work.agent}' AND Task = '{work.task}' "
            "AND ExecutionStatus = 'Completed'"
        )
        page = self.client.list_workflows(query, page_size=_SAMPLE, limit=_SAMPLE)
        try:
            runs = [
                ((run.close_time - run.start_time).total_seconds(), (await run.memo()).get("total", 1))
                async for run in page
                if run.close_time
            ]
        except RPCError:
            return None  # an estimate is not worth a failed answer
        if not runs:
            return None
        self._per_item[work] = statistics.median(seconds / max(1, total) for seconds, total in runs)
        return statistics.median(seconds for seconds, _ in runs)

    async def remaining(self, work: Work, created_at: datetime, percent: float) -> float:
        """Seconds until an open run is expected to end, at least 0. `percent` is how far it says it is."""
        elapsed = max(0.0, (datetime.now(UTC) - created_at).total_seconds())
        if percent >= _TELLING_PERCENT:
            return elapsed * (100 - percent) / percent
        typical = await self.typical(work)
        if typical is not None and typical > elapsed:
            return typical - elapsed
        return elapsed  # as long again: all that can be said of what takes longer than it should
