"""The app, and the server that serves it."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from sevenfold import __version__
from sevenfold.api import asynchronous_queue, event_driven, hybrid, polling, streaming, synchronous, webhook_callback
from sevenfold.api.access import erasures, keys, tenants, tokens
from sevenfold.api.approvals import page as approval_page
from sevenfold.api.approvals import router as approvals
from sevenfold.api.components import Components, build_components
from sevenfold.api.events import asyncapi, dead_letters, eventbridge, sns, subscriptions
from sevenfold.api.events import stream as event_stream
from sevenfold.api.http import problem_handlers, problem_pages
from sevenfold.api.http.authentication import AuthenticationMiddleware
from sevenfold.api.http.authorization import CODEC_PREFIX, SOCKET_PATH, check_routes
from sevenfold.api.http.body_limit import BodyLimitMiddleware
from sevenfold.api.http.connection_limits import ConnectionLimits, connection_cap
from sevenfold.api.http.docs_page import install_docs
from sevenfold.api.http.origin_guard import OriginGuard
from sevenfold.api.http.problem_docs import PROBLEM_SCHEMA
from sevenfold.api.http.problem_handlers import list_routes
from sevenfold.api.http.query_parameters import RunTokenMiddleware
from sevenfold.api.http.request_id import RequestIdMiddleware
from sevenfold.api.http.request_normalization import RequestNormalizationMiddleware
from sevenfold.api.http.request_observer import RequestObserver
from sevenfold.api.http.security_docs import document_security
from sevenfold.api.http.tls_handshake import TlsServer
from sevenfold.api.http.uvicorn_protocol import limited_protocol
from sevenfold.api.http.websocket_protocol import WebSocketProtocol
from sevenfold.api.openai import chat as openai_chat
from sevenfold.api.openai import models as openai_models
from sevenfold.api.openai import responses as openai_responses
from sevenfold.api.openai.errors import OpenAIErrors
from sevenfold.api.operations import agents, codec, health, metrics, recommendations, statistics, usage
from sevenfold.api.runs import router as runs
from sevenfold.api.runs import steps
from sevenfold.api.streams import websocket as stream_websocket
from sevenfold.api.webhooks import endpoints
from sevenfold.api.webhooks import router as webhooks
from sevenfold.runtime.config.config_file import load_config
from sevenfold.runtime.config.settings import Settings
from sevenfold.runtime.process.event_loop_watch import arm_watchdog
from sevenfold.runtime.process.garbage_collection import freeze_gc
from sevenfold.runtime.process.http_server import HttpServer
from sevenfold.runtime.process.ports import bind
from sevenfold.runtime.secrets.tls import load_tls
from sevenfold.runtime.services import open_services
from sevenfold.runtime.streams import open_streams

log = structlog.get_logger(__name__)

MAX_BODY_BYTES = 10_000_000
# Maximum size of a WebSocket message: a query and its context.
MAX_MESSAGE_BYTES = 1_000_000

# Proxies close connections that are silent for about 16 s.
_PING_SECONDS = 8.0

# Longer than clients and load balancers keep idle connections (60 s at most, by their defaults). The client must
# close first; otherwise it may send a request on a connection that the server is just closing.
_IDLE_SECONDS = 75

# Headers of answers that a page of another origin may read.
_EXPOSED_HEADERS = (
    "Location",
    "WWW-Authenticate",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "ETag",
    "Preference-Applied",
    "Idempotency-Replayed",
    "X-Request-Id",
    "X-Stream-Id",
)

_DESCRIPTION = """
Connects one AI agent to any system by seven integration patterns. Every run is a durable workflow.

Every start takes an `Idempotency-Key`, every error is `application/problem+json`, and every run is at `/runs/{id}`.

A key sees its tenant only. A key with the scope `admin` sees all in lists, and names a tenant by `?tenant=`, for any
request.
"""


_TAGS = {
    "synchronous request": "Pattern 1: the client waits for the answer.",
    "asynchronous queue": "Pattern 2: jobs of one or many items, and their results.",
    "event-driven": "Pattern 3: CloudEvents, subscriptions, reactions and dead letters.",
    "webhook callback": "Pattern 4: the gateway analyzes a document and posts the result to a webhook.",
    "polling": "Pattern 5: the client polls for progress and result.",
    "streaming": "Pattern 6: the answer as it is generated, by server-sent events, JSON lines or WebSocket.",
    "hybrid": "Pattern 7: the gateway answers at once, queues or streams, by the expected duration.",
    "approvals": "What agents ask people, and the answers.",
    "runs": "Runs of all patterns: list, read, cancel, stream, statistics, usage.",
    "webhooks": "Stored webhook endpoints; deliveries: list, read, deliver again.",
    "agents": "The configured agents and their health.",
    "administration": "Tenants and API keys, for keys with the scope `admin`.",
    "recommendations": "Which pattern fits a use case.",
    "health": "Probes and metrics.",
}


def create_app(components: Components) -> FastAPI:
    """Builds the app. Handlers read their components from `app.state`."""
    app = FastAPI(
        title="Sevenfold",
        version=__version__,
        description=_DESCRIPTION,
        openapi_tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
        docs_url=None,  # api/http/docs_page.py has it
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        # Our own spans and metrics cover requests, runs and calls: the framework's would double them.
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
    )
    for name, value in vars(components).items():
        setattr(app.state, name, value)
    app.router.redirect_slashes = False  # the redirect would use the client's Host header
    problem_handlers.install(app)
    app.add_middleware(BodyLimitMiddleware, limit=MAX_BODY_BYTES)
    for router_module in (
        synchronous,
        asynchronous_queue,
        # before the route of one event, which would take their names for ids
        event_stream,
        eventbridge,
        sns,
        event_driven,
        subscriptions,
        dead_letters,
        asyncapi,
        webhook_callback,
        polling,
        streaming,
        stream_websocket,
        hybrid,
        recommendations,
        statistics,
        usage,
        runs,
        steps,
        approvals,
        openai_models,
        openai_chat,
        openai_responses,
        agents,
        webhooks,
        endpoints,
        tenants,
        erasures,
        keys,
        tokens,
        codec,
        health,
        metrics,
    ):
        app.include_router(router_module.router)
    app.include_router(problem_pages.router)
    app.include_router(approval_page.router)
    install_docs(app)
    check_routes(route.path for route in list_routes(app.routes) if hasattr(route, "path"))
    app.openapi = _document_problems(app.openapi)  # type: ignore[method-assign]
    return app


def _document_problems(generate: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """Replaces the schemas of FastAPI's validation errors, which are never sent, by the schema of problems, and adds
    credentials and scopes.
    """

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document["components"]["schemas"]
        if "Problem" not in schemas:
            for own in ("HTTPValidationError", "ValidationError"):
                schemas.pop(own, None)
            problem = dict(PROBLEM_SCHEMA)
            schemas.update(problem.pop("$defs"))
            schemas["Problem"] = problem
            document_security(document)
        return document

    return openapi


def _guarded(app: FastAPI, settings: Settings) -> ASGIApp:
    """The app behind the checks of host, origin and credential, with CORS for the origins that are configured."""
    state = app.state
    guarded: ASGIApp = AuthenticationMiddleware(
        RequestNormalizationMiddleware(app, (SOCKET_PATH,)), state.authenticator, state.access, state.rate_quotas
    )
    api = _for_origins(guarded, settings, settings.cors_origins)
    # The Temporal UI's pages may decrypt payloads, and nothing else; pages of others may not decrypt.
    codec = _for_origins(guarded, settings, settings.codec_origins)

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        is_codec = scope.get("path", "").startswith(f"{CODEC_PREFIX}/")
        await (codec if is_codec else api)(scope, receive, send)

    return dispatch


def _for_origins(app: ASGIApp, settings: Settings, origins: Sequence[str]) -> ASGIApp:
    """The app for our own pages and those of the origins."""
    if origins:
        app = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["*"],
            expose_headers=_EXPOSED_HEADERS,
            max_age=600,
        )
    return OriginGuard(app, settings.served_hosts, (*origins, *settings.own_origins))


async def serve(app: FastAPI, sock: socket.socket, settings: Settings, *, on_ready: Callable[[], None]) -> None:
    """Serves until it is cancelled. Then open streams end at once, so that their readers resume at another process,
    and other requests have the grace period to end. Raises StartupError for a certificate that cannot be used.
    """
    limits = ConnectionLimits(
        settings.head_seconds, settings.body_idle_seconds, connection_cap(settings.max_connections)
    )
    protocol = limited_protocol(limits)
    context = load_tls(settings)
    tls = TlsServer(context, protocol, limits) if context is not None else None
    config = uvicorn.Config(
        RunTokenMiddleware(RequestIdMiddleware(RequestObserver(OpenAIErrors(_guarded(app, settings))))),
        log_config=None,
        access_log=False,
        lifespan="off",
        # uvicorn only calls it: a factory will do
        http=tls.accept if tls is not None else protocol,  # type: ignore[arg-type]
        server_header=False,
        ws=WebSocketProtocol,
        ws_max_size=MAX_MESSAGE_BYTES,
        # Without compression, because a few kB can unpack to many MB before the size limit applies.
        ws_per_message_deflate=False,
        ws_ping_interval=_PING_SECONDS,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=max(1, round(settings.grace_seconds)),
    )
    server = HttpServer(config)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        while not (server.started or serving.done()):  # noqa: ASYNC110  (uvicorn has no event for it)
            await asyncio.sleep(0.01)
        freeze_gc()
        arm_watchdog()
        on_ready()
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        app.state.stream_hubs.stop()
        server.should_exit = True
        if tls is not None:
            tls.abort_handshakes()
        await serving
        await app.state.authenticator.aclose()
        await app.state.cluster_sampler.aclose()
        await app.state.sns_verifier.aclose()
        await app.state.rate_quotas.aclose()
        raise


async def run_api(settings: Settings) -> None:
    """Runs the API alone, against an existing Temporal."""
    load_tls(settings)  # a mistake is reported before anything starts
    config = load_config(settings.config)
    settings.check_exposure(has_credentials=config.has_credentials)
    with bind(settings.host, settings.port, "SEVENFOLD_PORT") as sock:
        async with (
            open_services(settings, config) as services,
            open_streams(services, has_local_worker=False) as hubs,
        ):
            app = create_app(build_components(services, hubs))
            await serve(app, sock, settings, on_ready=lambda: log.info("api listens", port=settings.port))
