"""Doing many things a few at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 8


async def few_at_once(work: Callable[[T], Awaitable[R]], items: Iterable[T]) -> list[R]:
    """The outcomes in the order of the items; eight are under way at a time."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(item: T) -> R:
        async with places:
            return await work(item)

    return list(await asyncio.gather(*map(one, items)))
