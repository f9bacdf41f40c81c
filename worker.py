"""The composition root of a worker process; also `python worker.py`."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import structlog
from temporalio.client import Client
from temporalio.worker import Worker

from activities.agent_calls import AgentCalls
from activities.documents import Documents
from activities.event_dispatch import EventDispatch
from activities.event_publication import EventPublication
from activities.item_chunks import ItemChunks
from activities.payload_upkeep import PayloadUpkeep
from activities.run_control import RunControl
from activities.webhook_attempts import WebhookAttempts
from activities.webhook_receivers import Receivers
from adapters.agents.error_boundary import contained_tasks
from adapters.agents.gate import gate_for
from adapters.agents.loading import AgentLoadError, load_agents
from adapters.agents.registry import AgentRegistry
from adapters.disk_space import DiskSpace
from adapters.documents.source import FETCH_SECONDS, DocumentSource
from adapters.outbound.guarded_http import guarded_client
from adapters.streams.live import LiveStreams
from adapters.webhooks.posting import TIMEOUT_SECONDS, WebhookPoster
from contracts.circuits import control_queue
from contracts.config import SevenfoldConfig
from contracts.events import event_queue
from contracts.runs import batch_queue, stream_queue
from contracts.webhooks import webhook_queue
from runtime.command import run
from runtime.config_file import load_config
from runtime.garbage import settle
from runtime.schedules import ensure_daily
from runtime.secret_key import load_sealer
from runtime.services import Services, opened_services
from runtime.settings import Settings
from runtime.startup import StartupError
from runtime.streams import opened_streams
from workflows.agent_circuit import AgentCircuit
from workflows.agent_limits import AgentLimits
from workflows.asynchronous_queue import AsynchronousQueue
from workflows.event_driven import EventDriven
from workflows.event_lane import EventLane
from workflows.event_reaction import EventReaction
from workflows.hybrid import Hybrid
from workflows.payload_upkeep import PayloadCleanup
from workflows.polling import Polling
from workflows.rejected_event import RejectedEvent
from workflows.stream_segment import StreamSegment
from workflows.streaming import Streaming
from workflows.subscription_registry import SubscriptionRegistry
from workflows.synchronous import SynchronousRequest
from workflows.webhook_callback import WebhookCallback
from workflows.webhook_delivery import WebhookDelivery
from workflows.webhook_receiver import WebhookReceiver

log = structlog.get_logger(__name__)

PATTERNS = [SynchronousRequest, AsynchronousQueue, WebhookCallback, Polling, Streaming, Hybrid]
BESIDE_PATTERNS = [StreamSegment, PayloadCleanup]
DELIVERIES = [WebhookDelivery, WebhookReceiver]
EVENTS = [EventDriven, EventReaction, EventLane, RejectedEvent, SubscriptionRegistry]
CONTROLS = [AgentCircuit, AgentLimits]
WORKFLOWS = [*PATTERNS, *BESIDE_PATTERNS, *DELIVERIES, *EVENTS, *CONTROLS]

# Deliveries wait for hours: replaying the few steps of one costs less than keeping all of them in memory.
_CACHED_DELIVERIES = 100
_DELIVERIES_AT_ONCE = 100
_CACHED_CONTROLS = 100

Activities = list[Callable[..., Any]]


def load_registry(settings: Settings, config: SevenfoldConfig) -> AgentRegistry:
    """The agents of the configuration; modules are looked for beside the configuration file."""
    try:
        return load_agents(config.called, settings.config.parent, os.environ)
    except AgentLoadError as error:
        raise StartupError(f"Agents that cannot be loaded (see {settings.config}):\n{error}") from None


@asynccontextmanager
async def running_worker(
    services: Services,
    agents: AgentRegistry,
    streams: LiveStreams,
) -> AsyncIterator[None]:
    """Workers that poll while the block runs, and drain for `settings.grace` at its end."""
    client, settings, config = services.client, services.settings, services.config
    gate = gate_for(client, settings.task_queue, config.called, services.circuits)
    calls = AgentCalls(
        agents,
        gate,
        streams,
        DiskSpace(settings.own_disk),
        opening=timedelta(seconds=settings.opening_seconds),
        max_calls=settings.max_concurrent_calls,
    )
    control = RunControl(client)
    upkeep = PayloadUpkeep(client)
    await ensure_daily(client, PayloadCleanup.__name__, settings.task_queue)
    chunks = ItemChunks(agents, gate, client)
    receivers = Receivers(client)
    sealer = load_sealer(settings)
    dispatch = EventDispatch(
        client,
        settings.task_queue,
        services.events.book,
        config.brokers,
        sealer,
        settings.webhook_schedule,
        settings.event_budget,
        targets=config.targets,
        interactions=config.interactions.enabled,
    )
    publication = EventPublication(services.events)
    loopback = settings.allow_loopback_urls
    try:
        async with (
            guarded_client(allow_loopback=loopback, timeout=FETCH_SECONDS) as documents_http,
            guarded_client(allow_loopback=loopback, timeout=TIMEOUT_SECONDS) as webhooks_http,
        ):
            documents = Documents(DocumentSource(documents_http, allow_loopback=loopback))
            attempts = WebhookAttempts(client, WebhookPoster(webhooks_http), sealer, receivers)
            activities: Activities = [
                calls.open_agent_call,
                calls.call_agent,
                calls.publish_stream,
                chunks.process_chunk,
                control.request_cancellation,
                upkeep.remove_expired_payloads,
                documents.read_document,
                publication.publish_events,
            ]
            reactions: Activities = [
                calls.open_agent_call,
                calls.call_agent,
                calls.publish_stream,
                control.request_cancellation,
                dispatch.dispatch_event,
                dispatch.start_reaction,
                dispatch.enter_lane,
                dispatch.signal,
                publication.publish_events,
            ]
            # Long work has a queue, and so slots, of its own: it never stands before what somebody waits for. So have
            # events, of which there may be a flood, and deliveries: receivers that hang hold up each other at most.
            async with (
                contained_tasks(),
                _worker(client, settings, settings.task_queue, [*PATTERNS, *BESIDE_PATTERNS], activities),
                _worker(client, settings, stream_queue(settings.task_queue), PATTERNS, activities),
                _worker(client, settings, batch_queue(settings.task_queue), PATTERNS, activities),
                _worker(client, settings, event_queue(settings.task_queue), EVENTS, reactions),
                _deliverer(client, settings, [attempts.attempt_delivery, receivers.report_receiver]),
                _controller(client, settings),
            ):
                yield
    finally:
        await calls.close()
        await gate.aclose()
        await agents.aclose()


def _worker(
    client: Client, settings: Settings, task_queue: str, workflows: list[type], activities: Activities
) -> Worker:
    return Worker(
        client,
        task_queue=task_queue,
        workflows=workflows,
        activities=activities,
        max_cached_workflows=settings.max_cached_workflows,
        # An opened call holds a workflow task for its first moments, so there must be as many of those. With a single
        # slot the polls for new runs and for cached ones would take turns.
        max_concurrent_workflow_tasks=max(2, settings.max_concurrent_calls),
        max_concurrent_local_activities=settings.max_concurrent_calls,
        max_concurrent_activities=settings.max_concurrent_calls,
        # A cancellation that was not pushed is found at the next heartbeat.
        max_heartbeat_throttle_interval=timedelta(seconds=1),
        # How long a dead worker's cached runs wait for it before any other may take them.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=5),
        graceful_shutdown_timeout=settings.grace,
    )


def _deliverer(client: Client, settings: Settings, activities: Activities) -> Worker:
    return Worker(
        client,
        task_queue=webhook_queue(settings.task_queue),
        workflows=DELIVERIES,
        activities=activities,
        max_cached_workflows=min(_CACHED_DELIVERIES, settings.max_cached_workflows),
        max_concurrent_activities=_DELIVERIES_AT_ONCE,
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=5),
        graceful_shutdown_timeout=settings.grace,
    )


def _controller(client: Client, settings: Settings) -> Worker:
    """For what runs wait for: it takes little, and must not wait behind them."""
    return Worker(
        client,
        task_queue=control_queue(settings.task_queue),
        workflows=CONTROLS,
        max_cached_workflows=min(_CACHED_CONTROLS, settings.max_cached_workflows),
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=2),
        graceful_shutdown_timeout=settings.grace,
    )


async def run_worker(settings: Settings) -> None:
    """Runs until it is cancelled."""
    config = load_config(settings.config)
    agents = load_registry(settings, config)
    async with (
        opened_services(settings, config) as services,
        opened_streams(services, local=True) as streams,
        running_worker(services, agents, streams),
    ):
        settle()
        log.info("worker polls", task_queue=settings.task_queue, agents=agents.names())
        await asyncio.Event().wait()


if __name__ == "__main__":
    run(run_worker)
