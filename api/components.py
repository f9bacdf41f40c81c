"""The composition root of the API: builds the objects that handlers depend on, once per process."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from temporalio.client import Client

from sevenfold.adapters.access.authenticator import Authenticator
from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.access.run_tokens import RunTokens
from sevenfold.adapters.encryption.payload_codec import EncryptionCodec
from sevenfold.adapters.encryption.remote_codec import RemoteCodec
from sevenfold.adapters.events.activity_feed import ActivityFeed
from sevenfold.adapters.events.ingest import EventIngest
from sevenfold.adapters.events.sns_signatures import SnsVerifier
from sevenfold.adapters.health import HealthChecks
from sevenfold.adapters.metrics.page import MetricsPage
from sevenfold.adapters.outbound.guarded_http import guarded_client
from sevenfold.adapters.quotas.rates import RateQuotas
from sevenfold.adapters.streams.hub import StreamHubs
from sevenfold.adapters.temporal.disk_space import DiskSpace
from sevenfold.adapters.temporal.durations import Durations
from sevenfold.adapters.temporal.pollers import WorkerPollers
from sevenfold.adapters.temporal.shared_answers import SharedAnswers
from sevenfold.adapters.temporal.task_queues import list_task_queues
from sevenfold.api.access.erasures import Erasures
from sevenfold.api.access.store import TenantStore
from sevenfold.api.dependencies import TemporalUi
from sevenfold.api.events.dead_letter_queue import DeadLetterQueue
from sevenfold.api.events.reader import EventReader
from sevenfold.api.events.subscription_store import SubscriptionStore
from sevenfold.api.http.listing import Pager
from sevenfold.api.http.pagination import Cursors
from sevenfold.api.http.url_policy import UrlPolicy
from sevenfold.api.openai.response_store import ResponseStore
from sevenfold.api.openai.starts import OpenAIStarts
from sevenfold.api.operations.agent_overview import AgentOverview
from sevenfold.api.operations.cluster_sampler import CLUSTER_REGISTRY, ClusterSampler
from sevenfold.api.operations.statistics_reader import StatisticsReader
from sevenfold.api.operations.usage_reader import UsageReader
from sevenfold.api.runs.agents import AgentCatalog
from sevenfold.api.runs.approval_desk import ApprovalDesk
from sevenfold.api.runs.approval_links import ApprovalLinks
from sevenfold.api.runs.estimates import JobEstimator
from sevenfold.api.runs.job_views import JobReader
from sevenfold.api.runs.poll_cache import PollCache
from sevenfold.api.runs.reader import RunReader
from sevenfold.api.runs.retry import RunRetrier
from sevenfold.api.runs.start import RunStarter
from sevenfold.api.runs.start_checks import StartChecks
from sevenfold.api.streams.detached import DetachedTasks
from sevenfold.api.streams.resume import StreamOpener
from sevenfold.api.webhooks.endpoint_store import EndpointStore
from sevenfold.api.webhooks.requests import WebhookTerms
from sevenfold.contracts.config.brokers import BrokerConfig
from sevenfold.runtime.authentication import build_authenticator
from sevenfold.runtime.services import Services
from sevenfold.runtime.temporal.sdk import shared_runtime

_STATISTICS_SECONDS = 1.0
_SNS_SECONDS = 5.0


@dataclass(frozen=True)
class Components:
    """One field per dependency, under the name by which `component(…)` reads it. No handler gets them all."""

    client: Client
    access: AccessDirectory
    authenticator: Authenticator
    rate_quotas: RateQuotas
    run_tokens: RunTokens | None
    tenant_store: TenantStore
    erasures: Erasures
    base_url: str
    temporal_ui: TemporalUi
    pager: Pager
    remote_codec: RemoteCodec
    disk: DiskSpace
    url_policy: UrlPolicy
    agents: AgentCatalog
    durations: Durations
    job_estimator: JobEstimator
    poll_cache: PollCache
    run_reader: RunReader
    job_reader: JobReader
    run_starter: RunStarter
    run_retrier: RunRetrier
    approval_desk: ApprovalDesk
    openai_starts: OpenAIStarts
    response_store: ResponseStore
    stream_hubs: StreamHubs
    stream_opener: StreamOpener
    endpoint_store: EndpointStore
    event_ingest: EventIngest
    sns_verifier: SnsVerifier
    event_reader: EventReader
    activity_feed: ActivityFeed
    subscription_store: SubscriptionStore
    dead_letter_queue: DeadLetterQueue
    brokers: Mapping[str, BrokerConfig]
    statistics_reader: StatisticsReader
    agent_overview: AgentOverview
    usage_reader: UsageReader
    cluster_sampler: ClusterSampler
    metrics_page: MetricsPage
    health_checks: HealthChecks


def build_components(
    services: Services, hubs: StreamHubs, find_lost_brokers: Callable[[], list[str]] = list
) -> Components:
    """Builds the components from the services of the process, its settings and its configuration.
    `find_lost_brokers`: the names of brokers that this process is to be connected to and is not.
    """
    client, settings, config = services.client, services.settings, services.config
    queue, breakers, ingest = settings.task_queue, services.circuit_breakers, services.event_ingest
    sealer = services.sealer
    ui = TemporalUi(settings.ui_url, client.namespace)
    disk, pollers = DiskSpace(settings.local_storage), WorkerPollers(client)
    agents = AgentCatalog(config.agents, config.workflow_targets, config.default_agent, services.access)
    durations = Durations(client, config.duration_estimates)
    url_policy = UrlPolicy(settings.allow_loopback_urls)
    webhooks = WebhookTerms(sealer, settings.webhook_schedule, url_policy, queue, services.webhook_endpoints)
    checks = StartChecks(client, breakers, services.quotas.starts)
    starter = RunStarter(client, queue, agents, checks, webhooks, disk, config.interactions.enabled)
    desk = ApprovalDesk(client, ApprovalLinks(sealer, settings.base_url))
    reader = RunReader(client, pollers, ui, desk)
    poll_cache = PollCache()
    opener = StreamOpener(client, hubs, starter, reader, DetachedTasks())
    shared = SharedAnswers(seconds=_STATISTICS_SECONDS)
    tenants = TenantStore(services.access)
    tokens = RunTokens(sealer) if sealer else None
    health = HealthChecks(
        client,
        queue,
        disk,
        hubs.log,
        has_worker=hubs.has_local_worker,
        build=settings.build,
        find_lost_brokers=find_lost_brokers,
    )
    sampler = ClusterSampler(client, list_task_queues(queue), breakers, config.circuit_configs)
    return Components(
        client=client,
        access=services.access,
        authenticator=build_authenticator(services, tokens),
        rate_quotas=services.quotas.rates,
        run_tokens=tokens,
        tenant_store=tenants,
        erasures=Erasures(client, tenants, queue, settings.grace_seconds),
        base_url=settings.base_url,
        temporal_ui=ui,
        pager=Pager(client, Cursors(sealer)),
        remote_codec=RemoteCodec(EncryptionCodec(services.codec_keys)),
        disk=disk,
        url_policy=url_policy,
        agents=agents,
        durations=durations,
        job_estimator=JobEstimator(durations, queue),
        poll_cache=poll_cache,
        run_reader=reader,
        job_reader=JobReader(reader),
        run_starter=starter,
        run_retrier=RunRetrier(client, reader, agents, checks, disk, poll_cache),
        approval_desk=desk,
        stream_hubs=hubs,
        stream_opener=opener,
        openai_starts=OpenAIStarts(client, starter, opener),
        response_store=ResponseStore(client, reader, opener, poll_cache),
        endpoint_store=EndpointStore(client, queue, webhooks, agents.list_names),
        event_ingest=ingest,
        sns_verifier=SnsVerifier(
            config.sns, guarded_client(allow_loopback=settings.allow_loopback_urls, timeout=_SNS_SECONDS)
        ),
        event_reader=EventReader(client, ui),
        activity_feed=ActivityFeed(client),
        subscription_store=SubscriptionStore(client, queue, services.access, ingest.subscriptions, agents, webhooks),
        dead_letter_queue=DeadLetterQueue(client, ui, services.access, services.quotas.rates),
        brokers=config.brokers,
        statistics_reader=StatisticsReader(client, queue, shared),
        agent_overview=AgentOverview(client, agents, breakers, shared),
        usage_reader=UsageReader(services.quotas.ledgers, services.quotas.budgets, services.access, shared),
        cluster_sampler=sampler,
        metrics_page=MetricsPage(
            shared_runtime().metrics_address, health.check, sampler.refresh, more=CLUSTER_REGISTRY
        ),
        health_checks=health,
    )
