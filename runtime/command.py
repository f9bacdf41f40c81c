"""Runs a process with the settings of its environment until it is stopped."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from sevenfold.runtime.config.settings import Settings, find_misspelt, load_settings
from sevenfold.runtime.process.event_loop_watch import watched_event_loop
from sevenfold.runtime.process.logs import configure_logs
from sevenfold.runtime.process.stopping import hard_exit, run_until_stopped
from sevenfold.runtime.secrets.codec_keys import load_key_ring
from sevenfold.runtime.startup import StartupError

log = structlog.get_logger(__name__)


def run(command: Callable[[Settings], Coroutine[Any, Any, None]]) -> None:
    """Runs a command with the settings of the environment. Exits with 2 if it cannot start."""
    try:
        os.umask(0o077)  # whatever we write is for its owner
        settings = load_settings()
        configure_logs(settings.log_levels, hide_messages=bool(load_key_ring(settings)))
        for sentence in find_misspelt():
            log.warning(sentence)
        _run_loop(_run_watched(command, settings))
    except StartupError as error:
        sys.stderr.write(f"Sevenfold cannot start.\n{error}\n")
        hard_exit(2)
    except Exception:
        # A worker that cannot continue raises here. A supervisor starts the process again.
        log.critical("the process ends, because a part of it has failed", exc_info=True)
        hard_exit(1)
    hard_exit(0)


async def _run_watched(command: Callable[[Settings], Coroutine[Any, Any, None]], settings: Settings) -> None:
    async with watched_event_loop(settings.watchdog_seconds):
        await run_until_stopped(command(settings))


def _run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Like `asyncio.run`, but a `SystemExit` from a callback that user code left on the loop does not end the loop.
    asyncio would raise it out of the loop, and every run in the process would stop.
    """
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        main = loop.create_task(work)
        while not main.done():
            try:
                loop.run_until_complete(main)
            except (SystemExit, KeyboardInterrupt) as error:
                if main.done():
                    raise
                log.exception(
                    "a callback raised an exception that would end the process; the process continues",
                    error=type(error).__name__,
                )
        main.result()
