"""The composition root of a worker process: `sevenfold worker` or `python worker.py`."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import structlog
from temporalio.client import Client
from temporalio.common import VersioningBehavior
from temporalio.worker import Worker

from sevenfold.activities.events.dispatch import EventDispatch
from sevenfold.activities.events.publish import EventPublication
from sevenfold.activities.events.replies import RunReplies
from sevenfold.activities.maintenance.erasure import ErasureActivities
from sevenfold.activities.maintenance.payload_cleanup import PayloadCleaner
from sevenfold.activities.runs.agent_calls import AgentCalls
from sevenfold.activities.runs.call_meter import CallMeter
from sevenfold.activities.runs.documents import DocumentActivities
from sevenfold.activities.runs.failures import FailureRules
from sevenfold.activities.runs.item_chunks import ItemChunks
from sevenfold.activities.runs.run_control import RunControl
from sevenfold.activities.runs.workflow_agent_budgets import WorkflowAgentBudgets
from sevenfold.activities.webhooks.attempts import WebhookAttempts
from sevenfold.activities.webhooks.endpoint_health import EndpointHealthActivities
from sevenfold.activities.webhooks.endpoint_tests import EndpointTests
from sevenfold.activities.webhooks.targets import DeliveryTargets
from sevenfold.adapters.access.step_addresses import StepAddresses
from sevenfold.adapters.agents.admission.admission import build_admission_control
from sevenfold.adapters.agents.error_boundary import contain_tasks
from sevenfold.adapters.agents.loading import AgentLoadError, load_agents
from sevenfold.adapters.agents.registry import AgentRegistry
from sevenfold.adapters.documents.source import FETCH_SECONDS, DocumentSource
from sevenfold.adapters.outbound.guarded_http import guarded_client
from sevenfold.adapters.streams.hub import StreamHubs
from sevenfold.adapters.temporal.disk_space import DiskSpace
from sevenfold.adapters.webhooks.posting import TIMEOUT_SECONDS, WebhookPoster
from sevenfold.contracts.agents.circuits import control_task_queue
from sevenfold.contracts.config.schema import SevenfoldConfig
from sevenfold.contracts.events.event_driven import event_task_queue
from sevenfold.contracts.runs.run import batch_task_queue, stream_task_queue
from sevenfold.contracts.webhooks.delivery import webhook_task_queue
from sevenfold.runtime.command import run
from sevenfold.runtime.config.config_file import load_config
from sevenfold.runtime.config.settings import Settings
from sevenfold.runtime.interceptors.builds import watched_build
from sevenfold.runtime.probe_server import served_probes
from sevenfold.runtime.process.event_loop_watch import arm_watchdog
from sevenfold.runtime.process.garbage_collection import freeze_gc
from sevenfold.runtime.secrets.secret_key import load_sealer
from sevenfold.runtime.services import Services, open_services
from sevenfold.runtime.startup import StartupError
from sevenfold.runtime.streams import open_streams
from sevenfold.runtime.temporal.schedules import ensure_daily
from sevenfold.runtime.temporal.workers import build_options, running_workers
from sevenfold.workflows.asynchronous_queue import AsynchronousQueue
from sevenfold.workflows.entities.agent_limits import AgentLimits
from sevenfold.workflows.entities.circuit_breaker import CircuitBreaker
from sevenfold.workflows.entities.tenant_registry import TenantRegistry
from sevenfold.workflows.entities.usage_ledger import UsageLedger
from sevenfold.workflows.event_driven import EventDriven
from sevenfold.workflows.events.event_reaction import EventReaction
from sevenfold.workflows.events.ordering import OrderingSemaphore
from sevenfold.workflows.events.rejected_event import RejectedEvent
from sevenfold.workflows.events.subscription_registry import SubscriptionRegistry
from sevenfold.workflows.hybrid import Hybrid
from sevenfold.workflows.maintenance.erasure import TenantErasure
from sevenfold.workflows.maintenance.payload_cleanup import PayloadCleanup
from sevenfold.workflows.polling import Polling
from sevenfold.workflows.runs.interaction_event import InteractionEvent
from sevenfold.workflows.runs.run_reply import RunReply
from sevenfold.workflows.runs.stream_segment import StreamSegment
from sevenfold.workflows.streaming import Streaming
from sevenfold.workflows.synchronous import SynchronousRequest
from sevenfold.workflows.webhook_callback import WebhookCallback
from sevenfold.workflows.webhooks.delivery import WebhookDelivery
from sevenfold.workflows.webhooks.endpoint_health import EndpointHealth
from sevenfold.workflows.webhooks.endpoints import WebhookEndpoints
from sevenfold.workflows.webhooks.updates import WebhookUpdates

log = structlog.get_logger(__name__)

RUN_WORKFLOWS = [SynchronousRequest, AsynchronousQueue, WebhookCallback, Polling, Streaming, Hybrid, InteractionEvent]
SUPPORT_WORKFLOWS = [StreamSegment, PayloadCleanup]
DELIVERY_WORKFLOWS = [WebhookDelivery, WebhookUpdates, WebhookEndpoints, EndpointHealth]
EVENT_WORKFLOWS = [EventDriven, EventReaction, OrderingSemaphore, RejectedEvent, RunReply, InteractionEvent]
CONTROL_WORKFLOWS = [CircuitBreaker, AgentLimits, TenantRegistry, TenantErasure, UsageLedger, SubscriptionRegistry]
WORKFLOWS = {*RUN_WORKFLOWS, *SUPPORT_WORKFLOWS, *DELIVERY_WORKFLOWS, *EVENT_WORKFLOWS, *CONTROL_WORKFLOWS}

# Deliveries wait for hours: replaying the few steps of one costs less than caching all of them.
_CACHED_DELIVERIES = 100
_MAX_CONCURRENT_DELIVERIES = 100
_CACHED_CONTROLS = 100
_MAX_CONCURRENT_ERASURES = 4

Activities = list[Callable[..., Any]]


def load_agent_registry(settings: Settings, config: SevenfoldConfig) -> AgentRegistry:
    """Loads the configured agents; their modules are searched beside the configuration file. Raises StartupError."""
    try:
        return load_agents(config.direct_agents, settings.config.parent, os.environ)
    except AgentLoadError as error:
        raise StartupError(f"These agents of {settings.config} cannot be loaded:\n{error}") from None


@asynccontextmanager
async def running_worker(
    services: Services,
    agents: AgentRegistry,
    hubs: StreamHubs,
) -> AsyncIterator[None]:
    """Workers that poll while the block runs and drain for up to `settings.grace_period` at its end."""
    client, settings, config = services.client, services.settings, services.config
    quotas = services.quotas
    admission = build_admission_control(
        client,
        settings.task_queue,
        config.direct_agents,
        services.circuit_breakers,
        quotas.budgets.check_call,
        counts_bugs=not settings.development,
    )
    rules = FailureRules(development=bool(settings.development))
    meter = CallMeter(quotas.meter, config.prices)
    calls = AgentCalls(
        agents,
        admission,
        hubs,
        DiskSpace(settings.local_storage),
        meter,
        rules=rules,
        inline_timeout=timedelta(seconds=settings.inline_start_seconds),
        max_calls=settings.max_concurrent_calls,
        steps=StepAddresses(load_sealer(settings), settings.base_url),
    )
    control = RunControl(client)
    agent_budgets = WorkflowAgentBudgets(quotas.budgets, quotas.meter, services.access, config.prices)
    payload_cleaner = PayloadCleaner(client)
    await ensure_daily(client, PayloadCleanup.__name__, settings.task_queue)
    chunks = ItemChunks(agents, admission, meter, rules, client)
    health = EndpointHealthActivities(client, services.webhook_endpoints)
    sealer = load_sealer(settings)
    targets = DeliveryTargets(sealer, health, services.webhook_endpoints)
    dispatch = EventDispatch(
        client,
        settings.task_queue,
        services.event_ingest.subscriptions,
        config.brokers,
        sealer,
        services.webhook_endpoints,
        settings.webhook_schedule,
        settings.event_budget,
        targets=config.workflow_targets,
        publish_interactions=config.interactions.enabled,
    )
    publication = EventPublication(services.event_ingest)
    replies = RunReplies(client, services.event_ingest, settings.task_queue)
    erasure = ErasureActivities(client, services.access, hubs.log)
    loopback = settings.allow_loopback_urls
    try:
        async with (
            guarded_client(allow_loopback=loopback, timeout=FETCH_SECONDS) as documents_http,
            guarded_client(allow_loopback=loopback, timeout=TIMEOUT_SECONDS) as webhooks_http,
        ):
            documents = DocumentActivities(DocumentSource(documents_http, allow_loopback=loopback), sealer)
            poster = WebhookPoster(webhooks_http)
            deliveries: Activities = [
                WebhookAttempts(client, poster, targets, services.access).attempt_delivery,
                health.report_endpoint,
                EndpointTests(poster, targets, services.webhook_endpoints).test_endpoint,
                publication.publish_events,
            ]
            activities: Activities = [
                calls.start_call_inline,
                calls.call_agent,
                calls.publish_stream,
                chunks.process_chunk,
                control.request_cancellation,
                agent_budgets.check_budget,
                agent_budgets.check_limits,
                agent_budgets.record_usage,
                payload_cleaner.remove_expired_payloads,
                documents.read_document,
                publication.publish_events,
            ]
            reactions: Activities = [
                calls.start_call_inline,
                calls.call_agent,
                calls.publish_stream,
                control.request_cancellation,
                agent_budgets.check_budget,
                agent_budgets.check_limits,
                agent_budgets.record_usage,
                dispatch.dispatch_event,
                dispatch.start_reaction,
                dispatch.acquire_semaphore,
                dispatch.signal_workflow,
                publication.publish_events,
                replies.publish_reply,
            ]
            # Long work has its own task queue and slots, so that it does not delay interactive runs. So have events,
            # which may arrive in floods, and deliveries, so that slow receivers delay only each other.
            queue = settings.task_queue
            async with (
                contain_tasks(),
                watched_build(client, settings, services.eager_starts),
                running_workers(
                    _worker(client, settings, queue, [*RUN_WORKFLOWS, *SUPPORT_WORKFLOWS], activities),
                    _worker(client, settings, stream_task_queue(queue), RUN_WORKFLOWS, activities),
                    _worker(client, settings, batch_task_queue(queue), RUN_WORKFLOWS, activities),
                    _worker(client, settings, event_task_queue(queue), EVENT_WORKFLOWS, reactions),
                    _delivery_worker(client, settings, deliveries),
                    _control_worker(client, settings, erasure.activities),
                ),
            ):
                yield
    finally:
        await calls.close()
        await admission.aclose()
        await agents.aclose()
        await quotas.meter.aclose()


def _worker(
    client: Client, settings: Settings, task_queue: str, workflows: list[type], activities: Activities
) -> Worker:
    return Worker(
        client,
        task_queue=task_queue,
        workflows=workflows,
        activities=activities,
        max_cached_workflows=settings.max_cached_workflows,
        # An inline call holds a workflow task slot, so there are as many slots as calls. With a single slot the polls
        # for new runs and for cached runs would alternate.
        max_concurrent_workflow_tasks=max(2, settings.max_concurrent_calls),
        max_concurrent_local_activities=settings.max_concurrent_calls,
        max_concurrent_activities=settings.max_concurrent_calls,
        # A cancellation that was not pushed arrives with the next heartbeat.
        max_heartbeat_throttle_interval=timedelta(seconds=1),
        # How long a dead worker's cached runs wait before another worker may take them.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=5),
        graceful_shutdown_timeout=settings.grace_period,
        **build_options(settings),
    )


def _delivery_worker(client: Client, settings: Settings, activities: Activities) -> Worker:
    return Worker(
        client,
        task_queue=webhook_task_queue(settings.task_queue),
        workflows=DELIVERY_WORKFLOWS,
        activities=activities,
        max_cached_workflows=min(_CACHED_DELIVERIES, settings.max_cached_workflows),
        max_concurrent_activities=_MAX_CONCURRENT_DELIVERIES,
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=5),
        graceful_shutdown_timeout=settings.grace_period,
        **build_options(settings, VersioningBehavior.AUTO_UPGRADE),
    )


def _control_worker(client: Client, settings: Settings, activities: Activities) -> Worker:
    """Polls the queue of circuit breakers, limits, tenants, subscriptions and erasures, separately from the runs that
    wait for them, or that are erased.
    """
    return Worker(
        client,
        task_queue=control_task_queue(settings.task_queue),
        workflows=CONTROL_WORKFLOWS,
        activities=activities,
        max_concurrent_activities=_MAX_CONCURRENT_ERASURES,
        max_cached_workflows=min(_CACHED_CONTROLS, settings.max_cached_workflows),
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=2),
        graceful_shutdown_timeout=settings.grace_period,
        **build_options(settings, VersioningBehavior.AUTO_UPGRADE),
    )


async def run_worker(settings: Settings) -> None:
    """Runs a worker until it is cancelled. Raises StartupError."""
    if settings.set_current and settings.build is None:
        raise StartupError("--set-current (SEVENFOLD_SET_CURRENT) needs SEVENFOLD_BUILD_ID and TEMPORAL_ADDRESS.")
    config = load_config(settings.config)
    agents = load_agent_registry(settings, config)
    async with (
        open_services(settings, config) as services,
        open_streams(services, has_local_worker=True) as hubs,
        served_probes(services, stream_log=hubs.log, has_worker=True),
        running_worker(services, agents, hubs),
    ):
        freeze_gc()
        arm_watchdog()
        log.info("worker polls", task_queue=settings.task_queue, agents=agents.names())
        await asyncio.Event().wait()


if __name__ == "__main__":
    run(run_worker)
