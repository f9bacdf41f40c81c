"""The streams that this process writes or reads: one tail per run, however many readers it has."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol

from sevenfold.adapters.streams.replay_buffer import ReplayBuffer
from sevenfold.adapters.streams.wakeup import LightEvent
from sevenfold.contracts.runs import RunOutcome
from sevenfold.contracts.streams import StreamLog, StreamLogError

# Where a worker runs beside the door, a run's agent most likely speaks here; so long is it given to begin.
_LOCAL_START_SECONDS = 0.3

# Between the last word of an attempt and the end of its run there is a moment in which the log has no news.
_OUTCOME_WAIT_SECONDS = 1.0

_LOG_PAUSE_SECONDS = 0.5
_REPOLL_SECONDS = 5.0


RequestPublishing = Callable[[], Coroutine[Any, Any, None]]


class StreamProducer(Protocol):
    """The agent's end of a stream: `sevenfold.adapters.streams.producer.StreamPublisher`."""

    def start_publishing(self) -> None: ...


class StreamHub:
    """One run's stream in this process. It is fed by the agent's own publisher if that is here, else from the log.

    The run's end is waited for only while no publisher is here.
    """

    def __init__(self, workflow_id: str, log: StreamLog, *, has_local_worker: bool) -> None:
        self.workflow_id = workflow_id
        self.log = log
        self.buffer = ReplayBuffer()
        self.reader_count = 0
        self.is_complete = False
        self._has_local_worker = has_local_worker
        self._producer: StreamProducer | None = None
        self._produced_at = 0.0
        self._request_publishing: RequestPublishing | None = None
        self._await_outcome: Callable[[], Coroutine[Any, Any, RunOutcome]] | None = None
        self._outcome_task: asyncio.Task[RunOutcome] | None = None
        self._feeder: asyncio.Task[None] | None = None
        self._log_position: Any = None
        self._changed = LightEvent()

    @property
    def is_idle(self) -> bool:
        """Whether nobody needs it."""
        return self.reader_count == 0 and self._producer is None

    def attach(self, producer: "StreamProducer") -> None:
        """From now on this publisher feeds it."""
        self._producer = producer
        if self.reader_count:
            producer.start_publishing()
        self._changed.set()

    def detach(self, producer: "StreamProducer") -> None:
        """The publisher has said its last."""
        if self._producer is producer:
            self._producer = None
            self._produced_at = time.monotonic()
            self._ensure_feeding()

    def add_reader(
        self,
        await_outcome: Callable[[], Coroutine[Any, Any, RunOutcome]],
        request_publishing: RequestPublishing | None,
    ) -> None:
        """A reader comes. `await_outcome` tells how the run ends, `request_publishing` has the run publish what its
        agent says in another process; only the first reader's are used.
        """
        self.reader_count += 1
        if self._producer is not None:
            self._producer.start_publishing()
        if self.reader_count == 1:
            self.is_complete = False
            self._log_position = None
            self._await_outcome = await_outcome
            self._request_publishing = request_publishing
        self._ensure_feeding()

    async def remove_reader(self) -> None:
        """A reader goes; after the last one nothing is read any more."""
        self.reader_count -= 1
        if self.reader_count == 0:
            tasks = [task for task in (self._outcome_task, self._feeder) if task]
            self._outcome_task = self._feeder = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def outcome(self) -> RunOutcome:
        """How the run ended, of a stream that is complete."""
        assert self._outcome_task is not None, "it is complete for as long as somebody reads it"  # noqa: S101
        return self._outcome_task.result()

    def raise_if_failed(self) -> None:
        """Raises what ended the feeding for good."""
        if self._feeder is not None and self._feeder.done():
            if self._feeder.cancelled():
                raise StreamLogError("the stream is not fed any more")
            self._feeder.result()

    def _ensure_feeding(self) -> None:
        if self.reader_count and self._producer is None and self._feeder is None and not self.is_complete:
            self._feeder = asyncio.create_task(self._feed_from_log())
            self._feeder.add_done_callback(lambda _: self.buffer.notify())

    async def _feed_from_log(self) -> None:
        """Until all is told, or a publisher does it."""
        if self._has_local_worker and not self._produced_at:
            await self._changed.wait(_LOCAL_START_SECONDS)
        if self._producer is None and self._request_publishing is not None:
            request_publishing, self._request_publishing = self._request_publishing, None
            await request_publishing()
        while self._producer is None and not self.is_complete:
            self._changed.clear()
            outcome_task = self._get_outcome_task()
            if not outcome_task.done() and time.monotonic() - self._produced_at < _OUTCOME_WAIT_SECONDS:
                await self._changed.wait(_OUTCOME_WAIT_SECONDS)
            elif outcome_task.done() and outcome_task.result().last_index == self.buffer.last_index:
                self.is_complete = True
            else:
                await self._read_log_page(outcome_task)
        self._feeder = None

    def _get_outcome_task(self) -> asyncio.Task[RunOutcome]:
        if self._outcome_task is None:
            assert self._await_outcome is not None, "fed for a reader only"  # noqa: S101
            self._outcome_task = asyncio.create_task(self._await_outcome())
            self._outcome_task.add_done_callback(lambda _: self._changed.set())
        return self._outcome_task

    async def _read_log_page(self, outcome_task: asyncio.Task[RunOutcome]) -> None:
        final = outcome_task.done()
        reading = asyncio.ensure_future(self.log.read(self.workflow_id, self._log_position, wait=not final))
        change = asyncio.ensure_future(self._changed.wait())
        try:
            # Asked anew now and then, whatever a log may have forgotten to tell.
            await asyncio.wait(
                {reading} if final else {reading, change},
                timeout=_REPOLL_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not reading.done():
                return
            page = await reading
        except StreamLogError:
            await asyncio.sleep(_LOG_PAUSE_SECONDS)
            return
        finally:
            for task in (reading, change):
                task.cancel()
            await asyncio.gather(reading, change, return_exceptions=True)
        for entry in page.entries:
            self.buffer.append(entry, confirmed=True)
        self._log_position = page.position
        self.is_complete = final and not page.has_more


class StreamHubs:
    """All streams of this process, over one log. `has_local_worker`: a worker runs here too."""

    def __init__(self, log: StreamLog, *, has_local_worker: bool) -> None:
        self.log = log
        self.writer_count = 0
        self._has_local_worker = has_local_worker
        self._hubs: dict[str, StreamHub] = {}
        self.stopping = asyncio.Event()

    def get(self, workflow_id: str) -> StreamHub:
        """The run's one stream here."""
        hub = self._hubs.get(workflow_id)
        if hub is None:
            hub = self._hubs[workflow_id] = StreamHub(workflow_id, self.log, has_local_worker=self._has_local_worker)
        return hub

    def last_index(self, workflow_id: str) -> int:
        """The last index that was told here."""
        hub = self._hubs.get(workflow_id)
        return hub.buffer.last_index if hub else 0

    def discard_if_idle(self, hub: StreamHub) -> None:
        """Lets go of it unless somebody needs it."""
        if hub.is_idle and self._hubs.get(hub.workflow_id) is hub:
            del self._hubs[hub.workflow_id]

    def stop(self) -> None:
        """Has all readers end, so that they go on at another process."""
        self.stopping.set()
        for hub in self._hubs.values():
            hub.buffer.notify()

    @asynccontextmanager
    async def subscribe(
        self,
        workflow_id: str,
        await_outcome: Callable[[], Coroutine[Any, Any, RunOutcome]],
        request_publishing: RequestPublishing | None = None,
    ) -> AsyncIterator[StreamHub]:
        """The run's stream, with one reader more while the block runs."""
        hub = self.get(workflow_id)
        hub.add_reader(await_outcome, request_publishing)
        try:
            yield hub
        finally:
            await hub.remove_reader()
            self.discard_if_idle(hub)
