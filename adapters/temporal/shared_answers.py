"""Answers that are costly to find and the same for everybody who asks at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

from cachetools import TTLCache

T = TypeVar("T")


class SharedAnswers:
    """Each answer is found once for all who ask within `seconds`, also while it is being found.

    A failure reaches all who wait for it and is not kept.
    """

    def __init__(self, seconds: float, max_size: int = 1_000) -> None:
        self._answers: TTLCache[Hashable, asyncio.Task[Any]] = TTLCache(maxsize=max_size, ttl=seconds)

    async def get(self, key: Hashable, find: Callable[[], Awaitable[T]]) -> T:
        """The answer for the key, by `find` if it is not known. Raises what `find` raises."""
        task: asyncio.Task[T] | None = self._answers.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = asyncio.create_task(_await_found(find))
            task.add_done_callback(_retrieve_exception)  # whoever asked may be gone before it fails
            self._answers[key] = task
        # One client that hangs up must not take the answer from the others.
        return await asyncio.shield(task)


async def _await_found(find: Callable[[], Awaitable[T]]) -> T:
    return await find()


def _retrieve_exception(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
