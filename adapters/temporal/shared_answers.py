"""Shares the answers of expensive queries between concurrent callers."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

from cachetools import TTLCache

T = TypeVar("T")


class SharedAnswers:
    """Computes each answer once for all callers within `seconds` seconds, including those that ask while it is
    computed.

    A failure reaches all current waiters and is not cached.
    """

    def __init__(self, seconds: float, max_size: int = 1_000) -> None:
        self._answers: TTLCache[Hashable, asyncio.Task[Any]] = TTLCache(maxsize=max_size, ttl=seconds)

    async def get(self, key: Hashable, find: Callable[[], Awaitable[T]]) -> T:
        """Returns the answer of the key, by `find` if it is not cached. Raises what `find` raises."""
        task: asyncio.Task[T] | None = self._answers.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            return await self.refresh(key, find)
        # Shielded: a caller that disconnects must not cancel it for the others.
        return await asyncio.shield(task)

    async def refresh(self, key: Hashable, find: Callable[[], Awaitable[T]]) -> T:
        """Returns the answer of the key as `find` finds it now, and caches it. Raises what `find` raises."""
        task = asyncio.create_task(_await_found(find))
        task.add_done_callback(_retrieve_exception)  # All callers may have gone before it fails.
        self._answers[key] = task
        return await asyncio.shield(task)


async def _await_found(find: Callable[[], Awaitable[T]]) -> T:
    return await find()


def _retrieve_exception(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
