"""Waiting in line: who stood there first goes first, however long the others take to get ready."""

import asyncio
from collections.abc import Iterable
from types import TracebackType


class Lines:
    """The lines of one process, by name. One that nobody stands in is forgotten."""

    def __init__(self) -> None:
        self._last: dict[str, asyncio.Future[None]] = {}

    def stand_in(self, names: Iterable[str]) -> "Place":
        """A place at the end of each line, taken at once. It has to be entered, or those behind wait for ever."""
        return Place(self._last, list(names))


class Place:
    """Entered when all have left that stood before."""

    def __init__(self, last: dict[str, asyncio.Future[None]], names: list[str]) -> None:
        self._last = last
        self._names = names
        self._before = [last[name] for name in names if name in last]
        self._left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for name in names:
            last[name] = self._left

    async def __aenter__(self) -> None:
        try:
            for one in self._before:
                await asyncio.shield(one)
        except asyncio.CancelledError:
            # those behind still have to wait for those before
            asyncio.gather(*self._before).add_done_callback(lambda _: self._leave())
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self._left.set_result(None)
        for name in self._names:
            if self._last.get(name) is self._left:
                del self._last[name]
