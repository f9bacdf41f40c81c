"""Runs a process from its environment until it is stopped."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from runtime.logs import configure_logs
from runtime.settings import Settings, load_settings
from runtime.startup import StartupError
from runtime.stopping import leave, until_stopped


def run(command: Callable[[Settings], Coroutine[Any, Any, None]]) -> None:
    """Runs a command with the settings of the environment. Exits with 2 when it cannot start."""
    try:
        settings = load_settings()
        configure_logs(settings.log_level)
        asyncio.run(until_stopped(command(settings)))
    except StartupError as error:
        sys.stderr.write(f"Sevenfold cannot start.\n{error}\n")
        leave(2)
    leave(0)
