"""Serves metrics and probes of a process that has no API: `sevenfold worker` and `sevenfold connect`."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog
import uvicorn
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sevenfold.adapters.access.authenticator import AccessUnavailableError, Authenticator, InvalidCredentialError
from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.health import HealthChecks
from sevenfold.adapters.metrics.page import MetricsPage, visible_to
from sevenfold.contracts.access import ANONYMOUS
from sevenfold.contracts.access import Scope as AccessScope
from sevenfold.contracts.health import Health, Liveness
from sevenfold.runtime.authentication import build_authenticator
from sevenfold.runtime.ports import bind
from sevenfold.runtime.sdk import shared_runtime
from sevenfold.runtime.services import Services
from sevenfold.runtime.settings import Settings

log = structlog.get_logger(__name__)

_MAX_CONNECTIONS = 50

_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)


class _ProbeApp:
    """`/metrics`, `/health/live` and `/health/ready`. With keys, `/metrics` needs one with the scope
    `metrics:read`.
    """

    def __init__(
        self, page: MetricsPage, checks: HealthChecks, authenticator: Authenticator, access: AccessDirectory
    ) -> None:
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
            case "/metrics":
                return await self._answer_metrics(headers)
        return _problem(404, "This process serves /metrics, /health/live and /health/ready.")

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


class _Server(uvicorn.Server):
    """Leaves signals to the command."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def served_probes(services: Services, checks: HealthChecks) -> AsyncIterator[None]:
    """Serves them on SEVENFOLD_METRICS_PORT while the block runs; does nothing if it is not set. Raises
    StartupError.
    """
    settings: Settings = services.settings
    if settings.metrics_port is None:
        yield
        return
    settings.check_exposure(has_credentials=services.requires_credentials)
    authenticator = build_authenticator(services, None)
    app = _ProbeApp(
        MetricsPage(shared_runtime().metrics_address, checks.check), checks, authenticator, services.access
    )
    with bind(settings.host, settings.metrics_port, "SEVENFOLD_METRICS_PORT") as sock:
        server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                ws="none",
                limit_concurrency=_MAX_CONNECTIONS,
                timeout_graceful_shutdown=1,
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        log.info("metrics and probes are served", port=settings.metrics_port)
        try:
            yield
        finally:
            server.should_exit = True
            await serving
            await authenticator.aclose()
