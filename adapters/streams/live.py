"""The streams that this process writes or reads: one tail per run, however many readers it has."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol

from adapters.streams.tail import Tail
from adapters.streams.wakeup import Wakeup
from contracts.runs import RunEnd
from contracts.streams import StreamLog, StreamLogError

# Where a worker runs beside the door, a run's agent most likely speaks here; so long is it given to begin.
_LOCAL_START_SECONDS = 0.3

# Between the last word of an attempt and the end of its run there is a moment in which the log has no news.
_END_SECONDS = 1.0

_LOG_PAUSE_SECONDS = 0.5
_ASKED_ANEW_SECONDS = 5.0


Follow = Callable[[], Coroutine[Any, Any, None]]


class Publisher(Protocol):
    """The agent's end of a stream: `adapters.streams.publisher.StreamPublisher`."""

    def want(self) -> None: ...


class LiveStream:
    """One run's stream in this process. It is fed by the agent's own publisher if that is here, else from the log.

    The run's end is waited for only while no publisher is here.
    """

    def __init__(self, workflow_id: str, log: StreamLog, *, local: bool) -> None:
        self.workflow_id = workflow_id
        self.log = log
        self.tail = Tail()
        self.readers = 0
        self.complete = False
        self._local = local
        self._publisher: Publisher | None = None
        self._published_at = 0.0
        self._follow: Follow | None = None
        self._until_ended: Callable[[], Coroutine[Any, Any, RunEnd]] | None = None
        self._ended: asyncio.Task[RunEnd] | None = None
        self._feeding: asyncio.Task[None] | None = None
        self._position: Any = None
        self._news = Wakeup()

    @property
    def idle(self) -> bool:
        """Whether nobody needs it."""
        return self.readers == 0 and self._publisher is None

    def attach(self, publisher: "Publisher") -> None:
        """From now on this publisher feeds it."""
        self._publisher = publisher
        if self.readers:
            publisher.want()
        self._news.set()

    def detach(self, publisher: "Publisher") -> None:
        """The publisher has said its last."""
        if self._publisher is publisher:
            self._publisher = None
            self._published_at = time.monotonic()
            self._feed_on()

    def join(self, until_ended: Callable[[], Coroutine[Any, Any, RunEnd]], follow: Follow | None) -> None:
        """A reader comes. `until_ended` tells how the run ends, `follow` has the run publish what its agent says in
        another process; only the first reader's are used.
        """
        self.readers += 1
        if self._publisher is not None:
            self._publisher.want()
        if self.readers == 1:
            self.complete = False
            self._position = None
            self._until_ended = until_ended
            self._follow = follow
        self._feed_on()

    async def leave(self) -> None:
        """A reader goes; after the last one nothing is read any more."""
        self.readers -= 1
        if self.readers == 0:
            tasks = [task for task in (self._ended, self._feeding) if task]
            self._ended = self._feeding = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def end(self) -> RunEnd:
        """How the run ended, of a stream that is complete."""
        assert self._ended is not None, "it is complete for as long as somebody reads it"  # noqa: S101
        return self._ended.result()

    def check(self) -> None:
        """Raises what ended the feeding for good."""
        if self._feeding is not None and self._feeding.done():
            if self._feeding.cancelled():
                raise StreamLogError("the stream is not fed any more")
            self._feeding.result()

    def _feed_on(self) -> None:
        if self.readers and self._publisher is None and self._feeding is None and not self.complete:
            self._feeding = asyncio.create_task(self._feed())
            self._feeding.add_done_callback(lambda _: self.tail.wake())

    async def _feed(self) -> None:
        """Until all is told, or a publisher does it."""
        if self._local and not self._published_at:
            await self._news.wait(_LOCAL_START_SECONDS)
        if self._publisher is None and self._follow is not None:
            follow, self._follow = self._follow, None
            await follow()
        while self._publisher is None and not self.complete:
            self._news.clear()
            ended = self._awaited_end()
            if not ended.done() and time.monotonic() - self._published_at < _END_SECONDS:
                await self._news.wait(_END_SECONDS)
            elif ended.done() and ended.result().last_index == self.tail.last_index:
                self.complete = True
            else:
                await self._read_on(ended)
        self._feeding = None

    def _awaited_end(self) -> asyncio.Task[RunEnd]:
        if self._ended is None:
            assert self._until_ended is not None, "fed for a reader only"  # noqa: S101
            self._ended = asyncio.create_task(self._until_ended())
            self._ended.add_done_callback(lambda _: self._news.set())
        return self._ended

    async def _read_on(self, ended: asyncio.Task[RunEnd]) -> None:
        final = ended.done()
        reading = asyncio.ensure_future(self.log.read(self.workflow_id, self._position, wait=not final))
        news = asyncio.ensure_future(self._news.wait())
        try:
            # Asked anew now and then, whatever a log may have forgotten to tell.
            await asyncio.wait(
                {reading} if final else {reading, news},
                timeout=_ASKED_ANEW_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not reading.done():
                return
            page = await reading
        except StreamLogError:
            await asyncio.sleep(_LOG_PAUSE_SECONDS)
            return
        finally:
            for task in (reading, news):
                task.cancel()
            await asyncio.gather(reading, news, return_exceptions=True)
        for entry in page.entries:
            self.tail.append(entry, confirmed=True)
        self._position = page.position
        self.complete = final and not page.more


class LiveStreams:
    """All streams of this process, over one log. `local`: a worker runs here too."""

    def __init__(self, log: StreamLog, *, local: bool) -> None:
        self.log = log
        self.writers = 0
        self._local = local
        self._streams: dict[str, LiveStream] = {}
        self.stopping = asyncio.Event()

    def of(self, workflow_id: str) -> LiveStream:
        """The run's one stream here."""
        stream = self._streams.get(workflow_id)
        if stream is None:
            stream = self._streams[workflow_id] = LiveStream(workflow_id, self.log, local=self._local)
        return stream

    def last_index(self, workflow_id: str) -> int:
        """The last index that was told here."""
        stream = self._streams.get(workflow_id)
        return stream.tail.last_index if stream else 0

    def forget(self, stream: LiveStream) -> None:
        """Lets go of it unless somebody needs it."""
        if stream.idle and self._streams.get(stream.workflow_id) is stream:
            del self._streams[stream.workflow_id]

    def stop(self) -> None:
        """Has all readers end, so that they go on at another process."""
        self.stopping.set()
        for stream in self._streams.values():
            stream.tail.wake()

    @asynccontextmanager
    async def joined(
        self,
        workflow_id: str,
        until_ended: Callable[[], Coroutine[Any, Any, RunEnd]],
        follow: Follow | None = None,
    ) -> AsyncIterator[LiveStream]:
        """The run's stream, with one reader more while the block runs."""
        stream = self.of(workflow_id)
        stream.join(until_ended, follow)
        try:
            yield stream
        finally:
            await stream.leave()
            self.forget(stream)
