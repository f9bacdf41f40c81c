"""Work that outlives the request which starts it."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

log = structlog.get_logger(__name__)


class DetachedTasks:
    """Runs tasks that no client waits for. A failure is logged, because nobody receives it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()  # asyncio itself keeps only weak references

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Starts the work and returns at once."""
        task = asyncio.create_task(_log_failure(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _log_failure(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception as error:
        log.warning("detached task failed", error=str(error))
