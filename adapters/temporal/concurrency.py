"""Doing many things a few at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_MAX_CONCURRENT = 8


async def gather_bounded(work: Callable[[T], Awaitable[R]], items: Iterable[T]) -> list[R]:
    """The outcomes in the order of the items; eight are under way at a time."""
    slots = asyncio.Semaphore(_MAX_CONCURRENT)

    async def one(item: T) -> R:
        async with slots:
            return await work(item)

    return list(await asyncio.gather(*map(one, items)))
