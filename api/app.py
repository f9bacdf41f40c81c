"""The composition root of the API: the app, and the server that serves it."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from fastapi_swagger import patch_fastapi
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from sevenfold import __version__
from sevenfold.adapters.events.activity_feed import ActivityFeed
from sevenfold.adapters.streams.hub import StreamHubs
from sevenfold.adapters.temporal.disk_space import DiskSpace
from sevenfold.adapters.temporal.durations import Durations
from sevenfold.adapters.temporal.pollers import WorkerPollers
from sevenfold.api import asynchronous_queue, event_driven, hybrid, polling, streaming, synchronous, webhook_callback
from sevenfold.api.dependencies import Gateway, WebhookSettings
from sevenfold.api.events import asyncapi, dead_letters, eventbridge, subscriptions
from sevenfold.api.events import stream as event_stream
from sevenfold.api.http import problem_handlers
from sevenfold.api.http.body_limit import BodyLimitMiddleware
from sevenfold.api.http.origin_guard import OriginGuard
from sevenfold.api.http.problem_docs import PROBLEM_SCHEMA
from sevenfold.api.http.request_id import RequestIdMiddleware
from sevenfold.api.http.request_normalization import RequestNormalizationMiddleware
from sevenfold.api.http.uvicorn_protocol import ConnectionLimits, connection_cap, limited_protocol
from sevenfold.api.operations import agents, health, recommendations, statistics
from sevenfold.api.runs import router as runs
from sevenfold.api.runs.poll_cache import PollCache
from sevenfold.api.streams import websocket as stream_websocket
from sevenfold.api.webhooks import router as webhooks
from sevenfold.runtime.config_file import load_config
from sevenfold.runtime.garbage import freeze_gc
from sevenfold.runtime.ports import bind
from sevenfold.runtime.secret_key import load_sealer
from sevenfold.runtime.services import Services, open_services
from sevenfold.runtime.settings import Settings
from sevenfold.runtime.streams import open_streams

log = structlog.get_logger(__name__)

MAX_BODY_BYTES = 10_000_000
# Of a message over the WebSocket: a question and its context.
MAX_MESSAGE_BYTES = 1_000_000

# Proxies cut what is silent for about 16 s.
_PING_SECONDS = 8.0

# Longer than clients and load balancers keep a connection that is not in use (60 s at most, by their defaults): who
# sends next must be who ends it, or a request meets a connection that is just being closed.
_IDLE_SECONDS = 75

# Headers of answers that a page of another origin may read.
_EXPOSED_HEADERS = (
    "Location",
    "Retry-After",
    "ETag",
    "Preference-Applied",
    "Idempotency-Replayed",
    "X-Request-Id",
    "X-Stream-Id",
)

_DESCRIPTION = """
One AI agent, connected to any system in seven ways, every one of them a durable workflow.

Every start takes an `Idempotency-Key`, every error is `application/problem+json`, every run is at `/runs/{id}`.
"""


_TAGS = {
    "synchronous request": "Pattern 1: the client waits for the answer.",
    "asynchronous queue": "Pattern 2: jobs of one or many items, and their results.",
    "event-driven": "Pattern 3: CloudEvents, subscriptions, reactions and dead letters.",
    "webhook callback": "Pattern 4: a document is analyzed, and the result is posted to a webhook.",
    "polling": "Pattern 5: the client polls for progress and result.",
    "streaming": "Pattern 6: the answer as it is generated, by server-sent events, JSON lines or WebSocket.",
    "hybrid": "Pattern 7: answered at once, queued or streamed, whichever fits.",
    "runs": "Runs of all patterns: list, read, cancel, follow, statistics.",
    "webhooks": "Deliveries of webhooks: list, read, deliver again.",
    "agents": "The configured agents and their health.",
    "recommendations": "Which pattern fits a use case.",
    "health": "Probes.",
}


def create_app(gateway: Gateway) -> FastAPI:
    """The API over a gateway."""
    app = FastAPI(
        title="Sevenfold",
        version=__version__,
        description=_DESCRIPTION,
        openapi_tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
        docs_url=None,  # served by fastapi_swagger, whose assets are local: the page works without the internet
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.state.gateway = gateway
    app.state.poll_cache = PollCache()
    app.router.redirect_slashes = False  # the redirect would be made of the Host header
    problem_handlers.install(app)
    app.add_middleware(BodyLimitMiddleware, limit=MAX_BODY_BYTES)
    for router_module in (
        synchronous,
        asynchronous_queue,
        # before the address of one event, which would take their names for ids
        event_stream,
        eventbridge,
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
        runs,
        agents,
        webhooks,
        health,
    ):
        app.include_router(router_module.router)
    patch_fastapi(app)
    app.openapi = _document_problems(app.openapi)  # type: ignore[method-assign]
    return app


def _document_problems(generate: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """FastAPI documents its own form of validation errors, which is never sent; ours goes in its place."""

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document["components"]["schemas"]
        if "Problem" not in schemas:
            for own in ("HTTPValidationError", "ValidationError"):
                schemas.pop(own, None)
            problem = dict(PROBLEM_SCHEMA)
            schemas.update(problem.pop("$defs"))
            schemas["Problem"] = problem
        return document

    return openapi


def build_gateway(services: Services, hubs: StreamHubs) -> Gateway:
    """What the doors need, out of settings and configuration."""
    client, settings, config = services.client, services.settings, services.config
    return Gateway(
        client=client,
        task_queue=settings.task_queue,
        agents=config.agents,
        workflow_targets=config.workflow_targets,
        circuit_breakers=services.circuit_breakers,
        default_agent=config.default_agent,
        ui_url=settings.ui_url,
        streams=hubs,
        event_ingest=services.event_ingest,
        activity_feed=ActivityFeed(client),
        brokers=config.brokers,
        pollers=WorkerPollers(client),
        disk=DiskSpace(settings.local_storage),
        publish_interactions=config.interactions.enabled,
        webhooks=WebhookSettings(
            load_sealer(settings), settings.webhook_schedule, allow_loopback=settings.allow_loopback_urls
        ),
        durations=Durations(
            client,
            {name: agent.duration_estimate for name, agent in config.agents.items() if agent.duration_estimate},
        ),
    )


def _guarded(app: ASGIApp, settings: Settings) -> ASGIApp:
    """The app behind the checks of host and origin, with CORS for the origins that are configured."""
    if settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["*"],
            expose_headers=_EXPOSED_HEADERS,
            max_age=600,
        )
    return OriginGuard(app, settings.served_hosts, settings.cors_origins)


class _Server(uvicorn.Server):
    """Leaves the signals to the command, which has more to end than this server."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(app: FastAPI, sock: socket.socket, settings: Settings, *, on_ready: Callable[[], None]) -> None:
    """Serves until it is cancelled, then lets running requests end within the grace period; open streams end at once,
    and their readers go on elsewhere.
    """
    limits = ConnectionLimits(
        settings.head_seconds, settings.body_idle_seconds, connection_cap(settings.max_connections)
    )
    config = uvicorn.Config(
        RequestIdMiddleware(_guarded(RequestNormalizationMiddleware(app), settings)),
        log_config=None,
        access_log=False,
        lifespan="off",
        http=limited_protocol(limits),
        server_header=False,
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE_BYTES,
        # A few kB that unpack to many MB would be parsed before anybody could refuse them.
        ws_per_message_deflate=False,
        ws_ping_interval=_PING_SECONDS,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=max(1, round(settings.grace_seconds)),
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        while not (server.started or serving.done()):  # noqa: ASYNC110  (uvicorn has no event for it)
            await asyncio.sleep(0.01)
        freeze_gc()
        on_ready()
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        app.state.gateway.streams.stop()
        server.should_exit = True
        await serving
        raise


async def run_api(settings: Settings) -> None:
    """Runs the API alone, against a Temporal that is there already."""
    settings.check_exposure()
    config = load_config(settings.config)
    with bind(settings.host, settings.port, "SEVENFOLD_PORT") as sock:
        async with (
            open_services(settings, config) as services,
            open_streams(services, has_local_worker=False) as hubs,
        ):
            app = create_app(build_gateway(services, hubs))
            await serve(app, sock, settings, on_ready=lambda: log.info("api listens", port=settings.port))
