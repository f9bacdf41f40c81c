"""The composition root of a worker process: `sevenfold worker` or `python worker.py`."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import structlog
from httpx import AsyncClient
from temporalio.client import Client
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
from sevenfold.adapters.agents.admission.admission import AdmissionControl, build_admission_control
from sevenfold.adapters.agents.error_boundary import contain_tasks
from sevenfold.adapters.agents.loading import AgentLoadError, load_agents
from sevenfold.adapters.agents.registry import AgentRegistry
from sevenfold.adapters.documents.source import FETCH_SECONDS, DocumentSource
from sevenfold.adapters.outbound.guarded_http import guarded_client
from sevenfold.adapters.streams.hub import StreamHubs
from sevenfold.adapters.temporal.disk_space import DiskSpace
from sevenfold.adapters.webhooks.posting import TIMEOUT_SECONDS, WebhookPoster
from sevenfold.contracts import workflow_types
from sevenfold.contracts.config.schema import SevenfoldConfig
from sevenfold.contracts.events.event_driven import event_task_queue
from sevenfold.contracts.runs.run import batch_task_queue, stream_task_queue
from sevenfold.contracts.runs.streams import StreamLog
from sevenfold.runtime.command import run
from sevenfold.runtime.config.config_file import load_config
from sevenfold.runtime.config.settings import Settings
from sevenfold.runtime.interceptors.builds import watched_build
from sevenfold.runtime.probe_server import served_probes
from sevenfold.runtime.process.event_loop_watch import arm_watchdog
from sevenfold.runtime.process.garbage_collection import freeze_gc
from sevenfold.runtime.services import Services, open_services
from sevenfold.runtime.startup import StartupError
from sevenfold.runtime.streams import open_streams
from sevenfold.runtime.temporal.schedules import ensure_daily
from sevenfold.runtime.temporal.workers import (
    Activities,
    build_control_worker,
    build_delivery_worker,
    build_run_worker,
    running_workers,
)
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


def load_agent_registry(settings: Settings, config: SevenfoldConfig) -> AgentRegistry:
    """Loads the configured agents; their modules are searched beside the configuration file. Raises StartupError."""
    try:
        return load_agents(config.direct_agents, settings.config.parent, os.environ)
    except AgentLoadError as error:
        raise StartupError(f"These agents of {settings.config} cannot be loaded:\n{error}") from None


@dataclass(frozen=True)
class _AgentWork:
    """What calls the agents of this process."""

    admission: AdmissionControl
    calls: AgentCalls
    chunks: ItemChunks


def _build_agent_work(services: Services, agents: AgentRegistry, hubs: StreamHubs) -> _AgentWork:
    client, settings, config, quotas = services.client, services.settings, services.config, services.quotas
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
        steps=StepAddresses(services.sealer, settings.base_url),
    )
    return _AgentWork(admission, calls, ItemChunks(agents, admission, meter, rules, client))


@dataclass(frozen=True)
class _ActivitySets:
    """The activities of each kind of worker."""

    runs: Activities
    reactions: Activities
    deliveries: Activities
    control: Activities


def _build_activities(
    services: Services,
    work: _AgentWork,
    stream_log: StreamLog,
    documents_http: AsyncClient,
    webhooks_http: AsyncClient,
) -> _ActivitySets:
    client, settings, config = services.client, services.settings, services.config
    endpoints, sealer, quotas = services.webhook_endpoints, services.sealer, services.quotas
    health = EndpointHealthActivities(client, endpoints)
    targets = DeliveryTargets(sealer, health, endpoints)
    poster = WebhookPoster(webhooks_http)
    publication = EventPublication(services.event_ingest)
    budgets = WorkflowAgentBudgets(quotas.budgets, quotas.meter, services.access, config.prices)
    dispatch = EventDispatch(
        client,
        settings.task_queue,
        services.event_ingest.subscriptions,
        config.brokers,
        sealer,
        endpoints,
        settings.webhook_schedule,
        settings.event_budget,
        targets=config.workflow_targets,
        publish_interactions=config.interactions.enabled,
    )
    documents = DocumentSource(documents_http, allow_loopback=settings.allow_loopback_urls)
    calling: Activities = [
        work.calls.start_call_inline,
        work.calls.call_agent,
        work.calls.publish_stream,
        RunControl(client).request_cancellation,
        budgets.check_budget,
        budgets.check_limits,
        budgets.record_usage,
        publication.publish_events,
    ]
    return _ActivitySets(
        runs=[
            *calling,
            work.chunks.process_chunk,
            DocumentActivities(documents, sealer).read_document,
            PayloadCleaner(client).remove_expired_payloads,
        ],
        reactions=[
            *calling,
            dispatch.dispatch_event,
            dispatch.start_reaction,
            dispatch.acquire_semaphore,
            dispatch.signal_workflow,
            RunReplies(client, services.event_ingest, settings.task_queue).publish_reply,
        ],
        deliveries=[
            WebhookAttempts(client, poster, targets, services.access).attempt_delivery,
            health.report_endpoint,
            EndpointTests(poster, targets, endpoints).test_endpoint,
            publication.publish_events,
        ],
        control=ErasureActivities(client, services.access, stream_log).activities,
    )


def _build_workers(client: Client, settings: Settings, activities: _ActivitySets) -> list[Worker]:
    """Long work has its own task queue and slots, so that it does not delay interactive runs. So have events, which
    may arrive in floods, and deliveries, so that slow receivers delay only each other.
    """
    queue = settings.task_queue
    return [
        build_run_worker(client, settings, queue, [*RUN_WORKFLOWS, *SUPPORT_WORKFLOWS], activities.runs),
        build_run_worker(client, settings, stream_task_queue(queue), RUN_WORKFLOWS, activities.runs),
        build_run_worker(client, settings, batch_task_queue(queue), RUN_WORKFLOWS, activities.runs),
        build_run_worker(client, settings, event_task_queue(queue), EVENT_WORKFLOWS, activities.reactions),
        build_delivery_worker(client, settings, DELIVERY_WORKFLOWS, activities.deliveries),
        build_control_worker(client, settings, CONTROL_WORKFLOWS, activities.control),
    ]


@asynccontextmanager
async def running_worker(services: Services, agents: AgentRegistry, hubs: StreamHubs) -> AsyncIterator[None]:
    """Workers that poll while the block runs and drain for up to `settings.grace_period` at its end."""
    client, settings = services.client, services.settings
    work = _build_agent_work(services, agents, hubs)
    await ensure_daily(client, workflow_types.PAYLOAD_CLEANUP, settings.task_queue)
    loopback = settings.allow_loopback_urls
    try:
        async with (
            guarded_client(allow_loopback=loopback, timeout=FETCH_SECONDS) as documents_http,
            guarded_client(allow_loopback=loopback, timeout=TIMEOUT_SECONDS) as webhooks_http,
        ):
            activities = _build_activities(services, work, hubs.log, documents_http, webhooks_http)
            async with (
                contain_tasks(),
                watched_build(client, settings, services.eager_starts),
                running_workers(*_build_workers(client, settings, activities)),
            ):
                yield
    finally:
        await work.calls.close()
        await work.admission.aclose()
        await agents.aclose()
        await services.quotas.meter.aclose()


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
