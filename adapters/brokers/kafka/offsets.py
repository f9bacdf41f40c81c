"""The offsets of a consumer: which of its records are in flight, and what may be committed."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import structlog
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

log = structlog.get_logger(__name__)

# How long records in flight may take to end before their partition goes to another member, in seconds. Less than a
# broker's usual session time-out, so that the group does not wait for a member that is alive.
_REVOKE_SECONDS = 3.0

_CLOSE_SECONDS = 2.0

# Pauses between the tries of a commit, in seconds.
_FIRST_PAUSE, _MAX_PAUSE = 0.5, 30.0


@dataclass(eq=False)
class _Partition:
    """A partition from its first record after an assignment to its revocation. `undone`: the offsets in flight,
    ascending, each with its task once there was a slot for it. `next_offset`: the one after the last that was
    delivered. `committed`: the position that the broker has confirmed.
    """

    undone: dict[int, "asyncio.Task[None] | None"] = field(default_factory=dict)
    next_offset: int | None = None
    committed: int | None = None

    @property
    def position(self) -> int | None:
        """The first offset that is not done, which is what Kafka stores for a partition; None without records."""
        return next(iter(self.undone), self.next_offset)


class OffsetTracker(ConsumerRebalanceListener):  # type: ignore[misc]
    """The records of one consumer in flight, at most `concurrency`. Only offsets without a gap are committed: Kafka
    stores one position per partition and never delivers earlier records again.

    A partition that is revoked gets a moment in which its records may end. Then they are cancelled: whoever gets the
    partition next gets them again. They never commit for a later assignment of the same partition.
    """

    def __init__(self, concurrency: int) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._consumer: Any = None
        self._committing: asyncio.Task[None] | None = None

    async def handle(
        self, consumer: Any, record: Any, work: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
    ) -> None:
        """Starts `work` on a record, with what acknowledges it; returns when there is room for another one."""
        self._consumer = consumer
        key = TopicPartition(record.topic, record.partition)
        # Before the first wait: the record belongs to the assignment under which it was delivered.
        partition = self._partitions.setdefault(key, _Partition())
        partition.undone[record.offset] = None
        partition.next_offset = record.offset + 1
        await self._slots.acquire()
        if self._partitions.get(key) is not partition:  # Revoked meanwhile: somebody gets the record again.
            self._slots.release()
            return
        partition.undone[record.offset] = asyncio.create_task(self._process(partition, record.offset, work))

    async def _process(
        self,
        partition: _Partition,
        offset: int,
        work: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]],
    ) -> None:
        async def acknowledge() -> None:
            partition.undone.pop(offset, None)
            self._commit_soon()

        try:
            await work(acknowledge)
        finally:
            self._slots.release()

    def _commit_soon(self) -> None:
        """Commits beside the work: at once, or when the commit under way has ended."""
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_all())
            self._committing.add_done_callback(self._end_commit)

    def _end_commit(self, task: "asyncio.Task[None]") -> None:
        self._committing = None
        if not task.cancelled() and (error := task.exception()) is not None:
            # What is not committed comes again, as duplicates; the next acknowledgement tries again.
            log.warning("committing offsets to Kafka failed", error=f"{type(error).__name__}: {error}")

    async def _commit_all(self) -> None:
        """Commits until nothing is left. What Kafka does not take is tried again, as no other acknowledgement may
        come: it is a group that rebalances, or a broker that is away. A partition that was revoked is left out.
        """
        pause = _FIRST_PAUSE
        while self._consumer is not None and (positions := self._uncommitted()):
            try:
                await self._consumer.commit(positions)
            except KafkaError as error:
                log.info("Kafka did not take offsets", error=f"{type(error).__name__}: {error}", retry_in=pause)
                await asyncio.sleep(pause)
                pause = min(_MAX_PAUSE, pause * 2)
                continue
            for key, position in positions.items():
                if (partition := self._partitions.get(key)) is not None:
                    partition.committed = position

    def _uncommitted(self) -> dict[TopicPartition, int]:
        return {
            key: partition.position
            for key, partition in self._partitions.items()
            if partition.position not in (None, partition.committed)
        }

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Lets the records in flight end and commits, then gives the partitions up."""
        given_up = [one for key in revoked if (one := self._partitions.get(key)) is not None]
        await self._end(given_up, _REVOKE_SECONDS)
        for key in revoked:
            self._partitions.pop(key, None)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Nothing to do: a partition is tracked from its first record on."""

    async def close(self) -> None:
        """Cancels the records in flight, which Kafka delivers again, and commits what is done."""
        await self._end(list(self._partitions.values()), 0)
        self._partitions.clear()

    async def _end(self, partitions: list[_Partition], seconds: float) -> None:
        tasks = [task for one in partitions for task in one.undone.values() if task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._committing is not None:
            self._committing.cancel()  # it may wait for its next try
            await asyncio.wait({self._committing}, timeout=_CLOSE_SECONDS)
        try:
            await asyncio.wait_for(self._commit_all(), _CLOSE_SECONDS)
        except TimeoutError:
            log.info("Kafka did not take offsets in time; the records come again as duplicates")
