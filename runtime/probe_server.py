"""Serves metrics and probes of a process that has no API: `sevenfold worker` and `sevenfold connect`."""

import asyncio
import ipaddress
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
import uvicorn
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sevenfold.adapters.access.authenticator import AccessUnavailableError, Authenticator, InvalidCredentialError
from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.health import HealthChecks
from sevenfold.adapters.metrics.page import MetricsPage, visible_to
from sevenfold.adapters.temporal.disk_space import DiskSpace
from sevenfold.contracts.access.principals import ANONYMOUS
from sevenfold.contracts.access.principals import Scope as AccessScope
from sevenfold.contracts.operations.health import Health, Liveness
from sevenfold.contracts.runs.streams import StreamLog
from sevenfold.runtime.authentication import build_authenticator
from sevenfold.runtime.config.settings import Settings
from sevenfold.runtime.process.http_server import HttpServer
from sevenfold.runtime.process.ports import bind
from sevenfold.runtime.services import Services
from sevenfold.runtime.temporal.sdk import shared_runtime

log = structlog.get_logger(__name__)

# A connection without a request in progress is closed when it is so old. Clients connect again.
_MAX_CONNECTION_SECONDS, _CHECK_SECONDS = 15.0, 1.0

_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)


class _ProbeApp:
    """`/metrics`, `/health/live` and `/health/ready`. With keys, `/metrics` needs one with the scope
    `metrics:read`.
    """

    def __init__(
        self,
        page: MetricsPage,
        checks: HealthChecks,
        authenticator: Authenticator,
        access: AccessDirectory,
        hosts: Sequence[str],
    ) -> None:
        self._hosts = hosts
        self._page = page
        self._access = access
        self._checks = checks
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await (await self._answer(scope))(scope, receive, send)

    async def _answer(self, scope: Scope) -> ASGIApp:
        if scope["method"] not in ("GET", "HEAD"):
            return _problem(405, "Send GET.")
        headers = Headers(scope=scope)
        match scope["path"]:
            case "/health/live":
                return JSONResponse(Liveness().model_dump(mode="json"))
            case "/health/ready":
                found = await self._checks.check()
                status = 503 if found.status is Health.FAILING else 200
                return JSONResponse(found.model_dump(mode="json", by_alias=True, exclude_none=True), status)
            case "/metrics" if not self._is_served(headers.get("host", "")):
                return _problem(421, "Name this process by its IP address, or set SEVENFOLD_ALLOWED_HOSTS.")
            case "/metrics":
                return await self._answer_metrics(headers)
        return _problem(404, "This process serves /metrics, /health/live and /health/ready.")

    def _is_served(self, host: str) -> bool:
        """A web page can read loopback by a name that it has made to lead there, but not without a name; and not
        without a key, where there are keys.
        """
        name = host.rpartition(":")[0] if re.search(r":[0-9]+$", host) else host
        if self._authenticator.requires_credentials or name in (*self._hosts, "localhost") or "*" in self._hosts:
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True

    async def _answer_metrics(self, headers: Headers) -> ASGIApp:
        principal = ANONYMOUS
        if self._authenticator.requires_credentials:
            bearer = _BEARER.fullmatch(headers.get("authorization", "").strip())
            credential = bearer[1] if bearer else headers.get("x-api-key")
            if not credential:
                return _problem(401, "Send an API key with the scope metrics:read: Authorization: Bearer ….")
            try:
                principal = await self._authenticator.authenticate(credential)
            except InvalidCredentialError as error:
                return _problem(401, str(error))
            except AccessUnavailableError:
                return _problem(503, "Keys cannot be read now. Send the request again.")
            if not principal.has(AccessScope.METRICS_READ):
                return _problem(403, "This needs the scope metrics:read.")
        is_visible = visible_to(principal, self._access.latest.allowed_agents(principal.tenant))
        body, media_type = await self._page.render(headers.get("accept", ""), is_visible)
        return Response(body, media_type=media_type)


def _problem(status: int, detail: str) -> ASGIApp:
    headers = {"WWW-Authenticate": 'Bearer realm="sevenfold"'} if status == 401 else None
    body = {"status": status, "detail": detail}
    return JSONResponse(body, status, headers=headers, media_type="application/problem+json")


async def _close_idle_connections(server: uvicorn.Server) -> None:
    """Idle connections, and those whose request never becomes complete, must not use up the process's descriptors."""
    seen: dict[Any, float] = {}
    while True:
        now = time.monotonic()
        seen = {one: seen.get(one, now) for one in list(server.server_state.connections)}
        for connection, since in seen.items():
            cycle = connection.cycle
            if now - since > _MAX_CONNECTION_SECONDS and (cycle is None or cycle.response_complete):
                connection.transport.close()
        await asyncio.sleep(_CHECK_SECONDS)


@asynccontextmanager
async def served_probes(
    services: Services,
    *,
    stream_log: StreamLog | None = None,
    has_worker: bool = False,
    find_lost_brokers: Callable[[], list[str]] = list,
) -> AsyncIterator[None]:
    """Serves them on SEVENFOLD_METRICS_PORT while the block runs; does nothing if it is not set. The keywords are
    those of `HealthChecks`. Raises StartupError.
    """
    settings: Settings = services.settings
    if settings.metrics_port is None:
        yield
        return
    settings.check_exposure(has_credentials=services.requires_credentials)
    checks = HealthChecks(
        services.client,
        settings.task_queue,
        DiskSpace(settings.local_storage),
        stream_log,
        has_worker=has_worker,
        build=settings.build,
        find_lost_brokers=find_lost_brokers,
    )
    authenticator = build_authenticator(services, None)
    page = MetricsPage(shared_runtime().metrics_address, checks.check)
    app = _ProbeApp(page, checks, authenticator, services.access, settings.served_hosts)
    with bind(settings.host, settings.metrics_port, "SEVENFOLD_METRICS_PORT") as sock:
        server = HttpServer(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                ws="none",
                timeout_graceful_shutdown=1,
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        closing = asyncio.create_task(_close_idle_connections(server))
        log.info("metrics and probes are served", port=settings.metrics_port)
        try:
            yield
        finally:
            closing.cancel()
            server.should_exit = True
            await serving
            await authenticator.aclose()
