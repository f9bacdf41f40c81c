"""Feeds a hub from the log while the run's agent works in another process."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from sevenfold.adapters.streams.replay_buffer import ReplayBuffer
from sevenfold.contracts.runs.run import RunOutcome
from sevenfold.contracts.runs.streams import LogPosition, StreamLog, StreamLogError

# With a worker in this process the run's agent most likely starts here: the log is read only after this time.
_LOCAL_START_SECONDS = 0.3

# A run ends a moment after its agent. The outcome alone then completes the stream, without reading the log.
_OUTCOME_WAIT_SECONDS = 1.0

_LOG_PAUSE_SECONDS = 0.5

# A waiting read is repeated after this time, in case the log missed a change.
_REPOLL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class RunSource:
    """What a hub asks of its run. `await_outcome` returns its end. `request_publishing`, if it is needed, makes a run
    that nobody follows publish its stream.
    """

    await_outcome: Callable[[], Coroutine[Any, Any, RunOutcome]]
    request_publishing: Callable[[], Coroutine[Any, Any, None]] | None = None


class LogFeeder:
    """Reads the log into the buffer until the run has ended and everything is read.

    Between `start` and `pause` it owns up to two tasks: one reads, one awaits the run's end. Paused, it has none, and
    keeps the position at which it continues.
    """

    def __init__(
        self,
        workflow_id: str,
        log: StreamLog,
        buffer: ReplayBuffer,
        source: RunSource,
        on_end: Callable[[BaseException | None], None],
    ) -> None:
        self._workflow_id = workflow_id
        self._log = log
        self._buffer = buffer
        self._source = source
        self._on_end = on_end
        self._publishing_requested = source.request_publishing is None
        self._position: LogPosition = None
        self._reading: asyncio.Task[None] | None = None
        self._outcome: asyncio.Task[RunOutcome] | None = None
        self._read_timeout: asyncio.Timeout | None = None

    def start(self, *, after_publisher: bool, has_local_worker: bool) -> None:
        """Begins to read. `after_publisher`: the agent has just ended here, so the run is about to end."""
        self._reading = asyncio.create_task(
            self._run(after_publisher=after_publisher, has_local_worker=has_local_worker),
            name=f"log of {self._workflow_id}",
        )
        self._reading.add_done_callback(self._end)

    def pause(self) -> list[asyncio.Task[Any]]:
        """Stops reading; a publisher feeds the buffer now, or nobody reads any more. Returns the cancelled tasks."""
        tasks: list[asyncio.Task[Any]] = [task for task in (self._reading, self._outcome) if task]
        self._reading = self._outcome = None
        for task in tasks:
            task.cancel()
        return tasks

    async def stop(self) -> None:
        """Stops reading and waits for the tasks to end."""
        await asyncio.gather(*self.pause(), return_exceptions=True)

    def outcome(self) -> RunOutcome:
        """The run's end, once everything is read."""
        assert self._outcome is not None, "kept from the end of reading until `pause`"  # noqa: S101
        return self._outcome.result()

    def _end(self, task: asyncio.Task[None]) -> None:
        if task is not self._reading:
            return  # it was paused
        if task.cancelled():
            self._on_end(StreamLogError("The stream's log is not read any more."))
        else:
            self._on_end(task.exception())

    async def _run(self, *, after_publisher: bool, has_local_worker: bool) -> None:
        if after_publisher:
            await asyncio.wait({self._ensure_outcome()}, timeout=_OUTCOME_WAIT_SECONDS)
        elif has_local_worker:
            await asyncio.sleep(_LOCAL_START_SECONDS)
        if not self._publishing_requested and not self._ensure_outcome().done():
            assert self._source.request_publishing is not None  # noqa: S101
            await self._source.request_publishing()
            self._publishing_requested = True
        while not await self._read_page():
            pass

    def _ensure_outcome(self) -> asyncio.Task[RunOutcome]:
        if self._outcome is None:
            self._outcome = asyncio.create_task(self._source.await_outcome(), name=f"end of {self._workflow_id}")
            self._outcome.add_done_callback(self._interrupt_read)
        return self._outcome

    def _interrupt_read(self, _: asyncio.Task[RunOutcome]) -> None:
        """The run has ended: a read that waits for the next entry is replaced by one that does not wait."""
        if self._read_timeout is not None and not self._read_timeout.expired():
            self._read_timeout.reschedule(asyncio.get_running_loop().time())

    async def _read_page(self) -> bool:
        """Reads what is next; True once the run has ended and nothing is left."""
        outcome = self._ensure_outcome()
        is_final = outcome.done()
        if is_final and outcome.result().last_index == self._buffer.last_index:
            return True
        try:
            async with asyncio.timeout(_REPOLL_SECONDS) as self._read_timeout:
                page = await self._log.read(self._workflow_id, self._position, wait=not is_final)
        except TimeoutError:
            return False
        except StreamLogError:
            await asyncio.sleep(_LOG_PAUSE_SECONDS)
            return False
        finally:
            self._read_timeout = None
        for entry in page.entries:
            self._buffer.append(entry, confirmed=True)
        self._position = page.position
        return is_final and not page.has_more
