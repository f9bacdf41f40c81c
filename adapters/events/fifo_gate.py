"""Waiting in line: who stood there first goes first, however long the others take to get ready."""

import asyncio
from collections.abc import Iterable
from types import TracebackType


class FifoGate:
    """The lines of one process, by name. One that nobody stands in is forgotten."""

    def __init__(self) -> None:
        self._tails: dict[str, asyncio.Future[None]] = {}

    def enqueue(self, names: Iterable[str]) -> "Ticket":
        """A place at the end of each line, taken at once. It has to be entered, or those behind wait for ever."""
        return Ticket(self._tails, list(names))


class Ticket:
    """Entered when all have left that stood before."""

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
            # those behind still have to wait for those before
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
