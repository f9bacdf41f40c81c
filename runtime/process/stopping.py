"""Stops a process gracefully on SIGTERM and SIGINT."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn

import structlog

log = structlog.get_logger(__name__)


async def run_until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Runs `work`. SIGTERM or SIGINT cancels it, so that its context managers close what they opened.

    A second signal cancels what is still draining.
    """
    task = asyncio.ensure_future(work)
    is_stopping = False

    def stop(signum: signal.Signals) -> None:
        nonlocal is_stopping
        is_stopping = True
        log.info("stopping", signal=signum.name)
        task.cancel()

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop, signum)
    try:
        await task
    except asyncio.CancelledError:
        if not is_stopping:
            raise


def hard_exit(code: int) -> NoReturn:
    """Ends the process with that exit code, after everything is closed.

    It skips the interpreter's teardown: the SDK's threads outlive its last client, and one that touches Python during
    teardown crashes the process (5 of 29 stops of a worker ended with a segmentation fault).
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
