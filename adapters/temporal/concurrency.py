"""Bounded concurrency."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_MAX_CONCURRENT = 8


async def gather_bounded(work: Callable[[T], Awaitable[R]], items: Iterable[T]) -> list[R]:
    """Runs `work` for every item, eight at a time; returns the results in the order of the items."""
    slots = asyncio.Semaphore(_MAX_CONCURRENT)

    async def one(item: T) -> R:
        async with slots:
            return await work(item)

    return list(await asyncio.gather(*map(one, items)))
