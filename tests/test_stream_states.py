"""The life cycles of a stream's hub, publisher and batch writer, over a log that the test controls."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from sevenfold.adapters.streams.batch_writer import WriterState
from sevenfold.adapters.streams.hub import HubState, StreamHub, StreamHubs
from sevenfold.adapters.streams.log_feeder import RunSource
from sevenfold.adapters.streams.publisher import PublisherState, StreamAttempt, StreamPublisher
from sevenfold.adapters.streams.reader import StreamGoneError, read_entries_after
from sevenfold.contracts.runs.run import RunOutcome, RunResult, RunStatus
from sevenfold.contracts.runs.streams import (
    MAX_UNCONFIRMED,
    RESET_STEP,
    StreamClosedError,
    StreamEntry,
    StreamLogError,
    StreamPage,
)
from tests.support.processes import until

RUN = "default:str_x"
DEADLINE = datetime.now(UTC) + timedelta(minutes=5)


class MemoryLog:
    """A log in memory: `failure` is raised by every write, and nothing is acknowledged before `acknowledges`."""

    def __init__(self) -> None:
        self.entries: list[StreamEntry] = []
        self.acknowledges = asyncio.Event()
        self.acknowledges.set()
        self.failure: Exception | None = None
        self.writes = 0

    def writer(self, workflow_id: str, deadline: datetime, *, is_retry: bool) -> "MemoryLog":
        return self

    def write_interval(self, *, has_local_readers: bool, age_seconds: float, writer_count: int) -> float:
        return 0.0

    async def append(self, entries: Sequence[StreamEntry]) -> None:
        self.writes += 1
        if self.failure is not None:
            raise self.failure
        await self.acknowledges.wait()
        self.entries += entries

    async def finish(self) -> None:
        pass

    async def read(self, workflow_id: str, position: int | None, *, wait: bool) -> StreamPage:
        while wait and len(self.entries) == (position or 0):
            await asyncio.sleep(0.01)
        return StreamPage(self.entries[position or 0 :], len(self.entries), has_more=False)

    async def last_index(self, workflow_id: str) -> int:
        return max((entry.index for entry in self.entries), default=0)


class Run:
    """The run's end, as the test decides it."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[RunOutcome] = asyncio.get_running_loop().create_future()
        self.requests = 0
        self.source = RunSource(self.outcome, self.request_publishing)

    async def outcome(self) -> RunOutcome:
        return await asyncio.shield(self.ended)

    async def request_publishing(self) -> None:
        self.requests += 1

    def end(self, last_index: int) -> None:
        result = RunResult(reply={"response": "x"}, duration_seconds=1, attempts=1, last_index=last_index)
        self.ended.set_result(RunOutcome(RunStatus.COMPLETED, result=result))


@pytest.fixture
async def log() -> MemoryLog:
    return MemoryLog()


def hubs_of(log: MemoryLog) -> StreamHubs:
    return StreamHubs(log, has_local_worker=False)


def publisher_of(hubs: StreamHubs, attempt: StreamAttempt, *, awaits_adoption: bool = False) -> StreamPublisher:
    return StreamPublisher(hubs, RUN, attempt, DEADLINE, awaits_adoption=awaits_adoption)


async def test_a_hub_is_fed_by_the_log_until_the_run_has_ended(log: MemoryLog) -> None:
    hub, run = StreamHub(RUN, log, has_local_worker=False), Run()
    hub.add_reader(run.source)
    assert hub.state is HubState.FED_BY_LOG
    await until(lambda: run.requests)
    log.entries.append(StreamEntry.chunk(1, "a"))
    await until(lambda: hub.buffer.last_index == 1)
    run.end(1)
    await until(lambda: hub.state is HubState.COMPLETE)
    assert hub.outcome().last_index == 1
    await hub.remove_reader()
    assert (hub.state, run.requests) == (HubState.IDLE, 1)


async def test_a_publisher_takes_over_from_the_log_and_gives_back(log: MemoryLog) -> None:
    hubs, run = hubs_of(log), Run()
    async with hubs.subscribe(RUN, run.outcome) as hub:
        publisher = publisher_of(hubs, StreamAttempt(1))
        assert hub.state is HubState.FED_BY_PUBLISHER
        await publisher.publish_chunk("a")
        assert [entry.index for entry in hub.buffer.entries_after(0)] == [1]
        assert await publisher.close(is_final=True) == 1
        assert hub.state is HubState.FED_BY_LOG
        run.end(1)
        await until(lambda: hub.is_complete)
    assert hub.state is HubState.IDLE
    assert hubs.get(RUN) is not hub, "it was dropped"


async def test_the_last_reader_leaves_the_hub_to_its_publisher(log: MemoryLog) -> None:
    hubs, run = hubs_of(log), Run()
    publisher = publisher_of(hubs, StreamAttempt(1))
    async with hubs.subscribe(RUN, run.outcome) as hub:
        await publisher.publish_chunk("a")
    assert hub.state is HubState.FED_BY_PUBLISHER
    await publisher.publish_chunk("b")
    assert await publisher.close() == 2
    assert hub.state is HubState.IDLE


async def test_a_run_whose_end_cannot_be_fetched_fails_its_readers(log: MemoryLog) -> None:
    hub, run = StreamHub(RUN, log, has_local_worker=False), Run()
    hub.add_reader(run.source)
    run.ended.set_exception(ValueError("unreadable"))
    await until(lambda: hub.state is HubState.FAILED)
    with pytest.raises(ValueError, match="unreadable"):
        hub.raise_if_failed()
    await hub.remove_reader()
    hub.raise_if_failed()


async def test_text_that_nobody_asks_for_is_never_written(log: MemoryLog) -> None:
    publisher = publisher_of(hubs_of(log), StreamAttempt(1))
    await publisher.publish_chunk("a")
    assert publisher.is_buffering
    assert await publisher.close(is_final=True) == 0
    assert not log.writes


async def test_text_from_before_the_request_is_published_in_order(log: MemoryLog) -> None:
    publisher = publisher_of(hubs_of(log), StreamAttempt(1))
    await publisher.publish_chunk("a")
    publisher.start_publishing()
    assert publisher._state is PublisherState.OPENING
    await publisher.publish_chunk("b")
    assert await publisher.close() == 2
    assert [entry.data for entry in log.entries] == [b'{"chunk":"a","index":1}', b'{"chunk":"b","index":2}']


async def test_the_log_gets_a_call_once_it_is_adopted(log: MemoryLog) -> None:
    publisher = publisher_of(hubs_of(log), StreamAttempt(1, is_awaited=True), awaits_adoption=True)
    await publisher.publish_chunk("a")
    assert publisher._state is PublisherState.LOCAL_ONLY
    await asyncio.sleep(0.05)
    assert not log.writes
    publisher.confirm_adoption()
    await until(lambda: log.entries)
    assert await publisher.close() == 1
    assert publisher._state is PublisherState.CLOSED


async def test_a_retry_begins_above_the_log_with_a_reset(log: MemoryLog) -> None:
    log.entries.append(StreamEntry.chunk(7, "lost"))
    publisher = publisher_of(hubs_of(log), StreamAttempt(2, is_retry=True))
    await publisher.publish_chunk("a")
    assert await publisher.close() == 7 + RESET_STEP + 1
    assert log.entries[1:] == [StreamEntry.reset(7 + RESET_STEP, 2), StreamEntry.chunk(7 + RESET_STEP + 1, "a")]


async def test_only_acknowledged_batches_are_confirmed_and_the_agent_waits_for_them(log: MemoryLog) -> None:
    hubs = hubs_of(log)
    publisher = publisher_of(hubs, StreamAttempt(1, is_awaited=True))
    log.acknowledges.clear()
    for _ in range(MAX_UNCONFIRMED):
        await publisher.publish_chunk("a")
    waiting = asyncio.create_task(publisher.publish_chunk("a"))
    await asyncio.sleep(0.05)
    buffer = hubs.get(RUN).buffer
    assert (waiting.done(), buffer.confirmed_offset, buffer.unconfirmed_count) == (False, 0, MAX_UNCONFIRMED)
    log.acknowledges.set()
    await waiting
    assert await publisher.close() == MAX_UNCONFIRMED + 1
    assert [entry.index for entry in log.entries] == list(range(1, MAX_UNCONFIRMED + 2))
    assert hubs.writer_count == 0


async def test_a_batch_is_retried_while_the_log_is_unreachable(log: MemoryLog) -> None:
    publisher = publisher_of(hubs_of(log), StreamAttempt(1, is_awaited=True))
    log.failure = StreamLogError("away")
    await publisher.publish_chunk("a")
    await until(lambda: log.writes > 1)
    log.failure = None
    assert await publisher.close() == 1
    assert len(log.entries) == 1


async def test_a_writer_that_is_fenced_off_fails_its_attempt(log: MemoryLog) -> None:
    publisher = publisher_of(hubs_of(log), StreamAttempt(1, is_awaited=True))
    log.failure = StreamClosedError("a later attempt writes")
    await publisher.publish_chunk("a")
    writer = publisher._writer
    assert writer is not None
    await until(lambda: writer.state is WriterState.ENDED)
    with pytest.raises(StreamClosedError):
        await publisher.publish_chunk("b")
    with pytest.raises(StreamClosedError):
        await publisher.close()


async def test_a_replaced_attempt_publishes_and_writes_nothing_more(log: MemoryLog) -> None:
    hubs = hubs_of(log)
    first = publisher_of(hubs, StreamAttempt(1, is_awaited=True))
    await first.publish_chunk("old")
    await until(lambda: log.entries)
    second = publisher_of(hubs, StreamAttempt(2, is_retry=True, is_awaited=True))
    with pytest.raises(StreamClosedError):
        await first.publish_chunk("late")
    await second.publish_chunk("new")
    with pytest.raises(StreamClosedError):
        await first.close()
    last_index = await second.close(is_final=True)
    assert [entry.index for entry in log.entries] == [1, 1 + RESET_STEP, 2 + RESET_STEP]
    assert last_index == 2 + RESET_STEP
    assert not hubs._hubs


async def test_an_unexpected_error_of_the_log_still_detaches_the_publisher(log: MemoryLog) -> None:
    hubs = hubs_of(log)
    publisher = publisher_of(hubs, StreamAttempt(1, is_awaited=True))
    log.failure = RuntimeError("no error of a log")
    await publisher.publish_chunk("a")
    with pytest.raises(RuntimeError):
        await publisher.close()
    assert not hubs._hubs
    assert hubs.writer_count == 0


async def test_a_long_text_that_is_caught_up_stays_below_the_unconfirmed_limit(log: MemoryLog) -> None:
    log.acknowledges.clear()
    hubs = hubs_of(log)
    publisher = publisher_of(hubs, StreamAttempt(1))
    text = "x" * 9_000_000
    await publisher.publish_chunk(text)
    publisher.start_publishing()
    hub = hubs.get(RUN)
    await until(lambda: hub.buffer.last_index)
    assert hub.buffer.last_index < MAX_UNCONFIRMED
    log.acknowledges.set()
    await publisher.close()
    assert sum(len(entry.data) for entry in log.entries) > len(text)


async def test_a_reader_that_is_cancelled_twice_leaves_no_hub(log: MemoryLog) -> None:
    hubs, run = hubs_of(log), Run()

    async def read() -> None:
        async with hubs.subscribe(RUN, run.outcome):
            await asyncio.sleep(60)

    reading = asyncio.create_task(read())
    await until(lambda: hubs._hubs)
    await asyncio.sleep(0.05)
    while not reading.done():  # as anyio does
        reading.cancel()
        await asyncio.sleep(0)
    assert not hubs._hubs


async def test_a_reader_behind_a_log_that_lost_its_entries_is_refused(log: MemoryLog) -> None:
    hubs, run = hubs_of(log), Run()
    publisher = publisher_of(hubs, StreamAttempt(1, is_awaited=True))
    async with hubs.subscribe(RUN, run.outcome) as hub:
        for _ in range(2_000):
            await publisher.publish_chunk("x" * 100)
        await publisher.close(is_final=True)
        assert hub.buffer.evicted_index
        log.entries.clear()  # a Redis that was restarted
        run.end(2_000)
        await until(lambda: hub.is_complete)
        with pytest.raises(StreamGoneError):
            await asyncio.wait_for(read_all(hubs, hub), 10)


async def read_all(hubs: StreamHubs, hub: StreamHub) -> None:
    async for _ in read_entries_after(hubs, hub, 0, heartbeat_seconds=0.1):
        pass
