"""FIFO gate: runs work in the order of enqueueing, however long its preparation takes."""

import asyncio
from collections.abc import Iterable
from types import TracebackType


class FifoGate:
    """FIFO queues of one process, by name. An empty queue is removed."""

    def __init__(self) -> None:
        self._tails: dict[str, asyncio.Future[None]] = {}

    def enqueue(self, names: Iterable[str]) -> "Ticket":
        """Takes a place at the end of each queue. The ticket must be entered and left, or the tickets behind it wait
        forever.
        """
        return Ticket(self._tails, list(names))


class Ticket:
    """Entered when all earlier tickets of its queues have left."""

    def __init__(self, tails: dict[str, asyncio.Future[None]], names: list[str]) -> None:
        self._tails = tails
        self._names = names
        self._predecessors = [tails[name] for name in names if name in tails]
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for name in names:
            tails[name] = self._done

    async def __aenter__(self) -> None:
        try:
            for one in self._predecessors:
                await asyncio.shield(one)
        except asyncio.CancelledError:
            # Later tickets still wait for the earlier ones.
            asyncio.gather(*self._predecessors).add_done_callback(lambda _: self._finish())
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish()

    def _finish(self) -> None:
        self._done.set_result(None)
        for name in self._names:
            if self._tails.get(name) is self._done:
                del self._tails[name]
