"""`sevenfold dev --reload`: Temporal stays, the gateway is replaced when its agents or its configuration change."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from pathlib import Path

import typer

from sevenfold.adapters.processes import die_with_parent
from sevenfold.runtime.config.settings import Settings, uses_own_cluster
from sevenfold.runtime.process.data_dir import lock_data_dir
from sevenfold.runtime.startup import StartupError
from sevenfold.runtime.temporal.connection import connect_without_payloads
from sevenfold.runtime.temporal.embedded import EmbeddedTemporal
from sevenfold.runtime.temporal.namespace import ensure_retention

# What the gateway needs beyond the grace time of its runs.
_STOP_SECONDS = 15.0


async def dev_with_reload(settings: Settings, *, ui: bool, options: Sequence[str]) -> None:
    """Runs Temporal, unless TEMPORAL_ADDRESS is set, and `sevenfold dev` with these options as a process beside it.

    A change of a Python file below the configuration's directory, or of the configuration, ends that process, with
    the grace time for its runs, and starts another. A gateway that cannot start waits for the next change.
    """
    changes = _watch(settings.config)
    async with AsyncExitStack() as stack:
        if not uses_own_cluster():
            own = settings.model_copy(update={"temporal_ui": ui or settings.temporal_ui})
            stack.enter_context(lock_data_dir(own.data_dir))
            await stack.enter_async_context(EmbeddedTemporal(own))
            client = await connect_without_payloads(own)
            await ensure_retention(client, timedelta(days=own.retention_days))
        while True:
            process = await _start([*options, *(["--ui"] if ui else [])])
            reporting = asyncio.create_task(_report_end(process))
            try:
                names = ", ".join(await anext(changes))
                reporting.cancel()
                typer.echo(f"{names} changed: the gateway starts again. {_what_becomes_of_runs(settings)}")
            finally:
                reporting.cancel()
                await _stop_surely(process, settings.grace_seconds)


def _what_becomes_of_runs(settings: Settings) -> str:
    return f"Runs in flight have {settings.grace_seconds:g} s to end; then the new code repeats them."


async def _report_end(process: asyncio.subprocess.Process) -> None:
    code = await process.wait()
    typer.echo(f"The gateway ended with exit code {code}. It starts again when a file changes.")


def _watch(config: Path) -> AsyncIterator[list[str]]:
    """Yields the names of changed files, of those changed together at once. Raises StartupError."""
    try:
        # Imported on use: it is an extra.
        from watchfiles import PythonFilter, awatch  # noqa: PLC0415
    except ModuleNotFoundError:
        raise StartupError(
            "--reload needs the extra `embedded`: install 'watchfiles' beside Sevenfold, "
            "from a checkout with: .venv/bin/pip install -e '.[embedded]'"
        ) from None
    directory = config.resolve().parent
    watched = PythonFilter(extra_extensions=(f"/{config.name}",))

    async def names() -> AsyncIterator[list[str]]:
        async for found in awatch(directory, watch_filter=watched, step=200):
            yield sorted({str(Path(path).relative_to(directory)) for _, path in found})

    return names()


async def _start(options: Sequence[str]) -> asyncio.subprocess.Process:
    gateway = [sys.executable, "-P", "-m", "sevenfold", "dev", "--without-temporal", *options]
    # Ctrl-C in a terminal signals the whole process group; a second signal would cut the grace time short.
    return await asyncio.create_subprocess_exec(*die_with_parent.launcher(), *gateway, start_new_session=True)


async def _stop_surely(process: asyncio.subprocess.Process, grace_seconds: float) -> None:
    """Returns when the process has ended, also if this is cancelled meanwhile: the gateway needs Temporal until then.
    A second cancellation kills it.
    """
    stopping = asyncio.create_task(_stop(process, grace_seconds))
    cancellations = 0
    while not stopping.done():
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError:
            cancellations += 1
            if cancellations > 1 and process.returncode is None:
                process.kill()
    if cancellations:
        raise asyncio.CancelledError


async def _stop(process: asyncio.subprocess.Process, grace_seconds: float) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), grace_seconds + _STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
