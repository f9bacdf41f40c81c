"""The streams that this process writes or reads: one hub per run, however many readers it has."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any, Protocol

from sevenfold.adapters.metrics.streams import READERS
from sevenfold.adapters.streams.log_feeder import LogFeeder, RunSource
from sevenfold.adapters.streams.replay_buffer import ReplayBuffer
from sevenfold.contracts.runs.run import RunOutcome
from sevenfold.contracts.runs.streams import Index, StreamLog


class HubPublisher(Protocol):
    """The agent's end of a stream: `sevenfold.adapters.streams.publisher.StreamPublisher`."""

    def start_publishing(self) -> None: ...

    def supersede(self) -> None: ...


class HubState(Enum):
    """Who fills a hub's buffer. The docstring of `StreamHub` has the transitions."""

    IDLE = "idle"
    FED_BY_PUBLISHER = "fed by publisher"
    FED_BY_LOG = "fed by log"
    COMPLETE = "complete"
    FAILED = "failed"


class StreamHub:
    """One run's stream in this process: a replay buffer, and its writer.

    | state | publisher | readers | tasks | buffer |
    |---|---|---|---|---|
    | IDLE | no | 0 | none | not filled; `StreamHubs` drops the hub |
    | FED_BY_PUBLISHER | yes | any | none of the hub's own | filled by the publisher, unconfirmed |
    | FED_BY_LOG | no | 1 or more | the feeder's: one reads the log, one awaits the run's end | filled by the feeder |
    | COMPLETE | any | 1 or more | none runs | holds the end of the stream; `outcome()` is known |
    | FAILED | any | 1 or more | none runs | not filled; `raise_if_failed()` raises |

    Transitions:
    - `attach`: IDLE, FED_BY_LOG → FED_BY_PUBLISHER; the feeder pauses. A publisher replaces the one before.
    - `detach`: FED_BY_PUBLISHER → FED_BY_LOG with readers (the feeder reads the rest and the run's end), else IDLE.
    - `add_reader`: IDLE → FED_BY_LOG.
    - The feeder: FED_BY_LOG → COMPLETE once the run has ended and its log is read; → FAILED if the run's end cannot
      be fetched.
    - `remove_reader`, the last one: FED_BY_LOG, COMPLETE, FAILED → FED_BY_PUBLISHER if a publisher is attached, else
      IDLE; the feeder's tasks are cancelled and awaited.

    Invariants:
    - Exactly one side fills the buffer. Only the event loop's thread calls a hub, and no transition awaits before the
      new state is set.
    - A publisher is asked to publish as soon as there is a reader, whichever comes first.
    - COMPLETE and FAILED are final for the readers that see them: a publisher that attaches meanwhile (a redriven
      run) takes over when they have left.

    When the process stops, `StreamHubs.stop` ends the readers; they leave, and hubs go by the transitions above.
    """

    def __init__(self, workflow_id: str, log: StreamLog, *, has_local_worker: bool) -> None:
        self.workflow_id = workflow_id
        self.log = log
        self.buffer = ReplayBuffer()
        self.state = HubState.IDLE
        self.reader_count = 0
        self._has_local_worker = has_local_worker
        self._publisher: HubPublisher | None = None
        self._feeder: LogFeeder | None = None
        self._failure: BaseException | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the buffer has the stream's end."""
        return self.state is HubState.COMPLETE

    def attach(self, publisher: HubPublisher) -> None:
        """The publisher of an attempt feeds the hub from now on; one of an earlier attempt does no more."""
        if self._publisher is not None:
            self._publisher.supersede()
        self._publisher = publisher
        if self.state in (HubState.IDLE, HubState.FED_BY_LOG):
            self.state = HubState.FED_BY_PUBLISHER
            if self._feeder is not None:
                self._feeder.pause()
        if self.reader_count:
            publisher.start_publishing()

    def detach(self, publisher: HubPublisher) -> None:
        """The attempt has ended. Ignored from a publisher that was replaced."""
        if self._publisher is not publisher:
            return
        self._publisher = None
        if self.state is HubState.FED_BY_PUBLISHER:
            if self._feeder is not None:
                self._feed_from_log(self._feeder, after_publisher=True)
            else:
                self.state = HubState.IDLE

    def add_reader(self, source: RunSource) -> None:
        """Counts a reader; only the first one's `source` is used."""
        self.reader_count += 1
        READERS.inc()
        if self._feeder is None:
            self._feeder = LogFeeder(self.workflow_id, self.log, self.buffer, source, self._on_feeder_end)
        if self._publisher is not None:
            self._publisher.start_publishing()
        elif self.state is HubState.IDLE:
            self._feed_from_log(self._feeder, after_publisher=False)

    async def remove_reader(self) -> None:
        """Uncounts a reader; after the last one nothing is read any more."""
        self.reader_count -= 1
        READERS.dec()
        if self.reader_count == 0 and self._feeder is not None:
            feeder, self._feeder, self._failure = self._feeder, None, None
            self.state = HubState.IDLE if self._publisher is None else HubState.FED_BY_PUBLISHER
            await feeder.stop()

    def outcome(self) -> RunOutcome:
        """The run's end. Only in COMPLETE."""
        assert self.state is HubState.COMPLETE and self._feeder is not None  # noqa: S101, PT018
        return self._feeder.outcome()

    def raise_if_failed(self) -> None:
        """Raises what ended the feeding."""
        if self._failure is not None:
            raise self._failure

    def _feed_from_log(self, feeder: LogFeeder, *, after_publisher: bool) -> None:
        self.state = HubState.FED_BY_LOG
        feeder.start(after_publisher=after_publisher, has_local_worker=self._has_local_worker)

    def _on_feeder_end(self, failure: BaseException | None) -> None:
        self._failure = failure
        self.state = HubState.COMPLETE if failure is None else HubState.FAILED
        self.buffer.notify()


class StreamHubs:
    """All hubs of this process, over one log. `has_local_worker`: a worker runs in this process too.

    A hub exists from its first reader or publisher to its last: `discard_if_idle` drops it in IDLE.
    """

    def __init__(self, log: StreamLog, *, has_local_worker: bool) -> None:
        self.log = log
        self.writer_count = 0
        self.stopping = asyncio.Event()
        self.has_local_worker = has_local_worker
        self._hubs: dict[str, StreamHub] = {}

    def get(self, workflow_id: str) -> StreamHub:
        """The run's hub; created if there is none."""
        hub = self._hubs.get(workflow_id)
        if hub is None:
            hub = self._hubs[workflow_id] = StreamHub(workflow_id, self.log, has_local_worker=self.has_local_worker)
        return hub

    def last_index(self, workflow_id: str) -> Index:
        """The last index that this process has seen of the run, 0 if it has no hub."""
        hub = self._hubs.get(workflow_id)
        return hub.buffer.last_index if hub else 0

    def discard_if_idle(self, hub: StreamHub) -> None:
        """Drops the hub if it has neither readers nor a publisher."""
        if hub.state is HubState.IDLE and self._hubs.get(hub.workflow_id) is hub:
            del self._hubs[hub.workflow_id]

    def stop(self) -> None:
        """Ends all readers, which reconnect to another process."""
        self.stopping.set()
        for hub in self._hubs.values():
            hub.buffer.notify()

    @asynccontextmanager
    async def subscribe(
        self,
        workflow_id: str,
        await_outcome: Callable[[], Coroutine[Any, Any, RunOutcome]],
        request_publishing: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> AsyncIterator[StreamHub]:
        """The run's hub, with one more reader for as long as the block runs; see `RunSource`."""
        hub = self.get(workflow_id)
        hub.add_reader(RunSource(await_outcome, request_publishing))
        try:
            yield hub
        finally:
            try:
                await hub.remove_reader()
            finally:  # a second cancellation may come while it waits
                self.discard_if_idle(hub)
