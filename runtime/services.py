"""Builds the objects that all processes share; the only composition of them, for the commands and the tests."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

from temporalio.client import Client

from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.access.registry import TenantRegistryClient
from sevenfold.adapters.access.snapshot import ConfiguredAccess
from sevenfold.adapters.agents.admission.circuit_breakers import CircuitBreakers
from sevenfold.adapters.encryption.key_ring import KeyRing
from sevenfold.adapters.encryption.sealing import Sealer
from sevenfold.adapters.events.ingest import EventIngest
from sevenfold.adapters.metrics.labels import LabelPolicy, use_policy
from sevenfold.adapters.webhooks.endpoint_directory import EndpointDirectory
from sevenfold.contracts.config.schema import SevenfoldConfig
from sevenfold.runtime.config.settings import Settings
from sevenfold.runtime.events import build_event_ingest
from sevenfold.runtime.interceptors.builds import EagerStarts
from sevenfold.runtime.process.data_dir import lock_data_dir
from sevenfold.runtime.process.tracing import exported_traces
from sevenfold.runtime.quotas import ProcessQuotas, build_quotas
from sevenfold.runtime.secrets.codec_keys import check_open_workflows, load_key_ring
from sevenfold.runtime.secrets.secret_key import load_sealer
from sevenfold.runtime.temporal.connection import Interceptors, connect_temporal
from sevenfold.runtime.temporal.embedded import EmbeddedTemporal
from sevenfold.runtime.temporal.namespace import ensure_retention, ensure_search_attributes


@dataclass(frozen=True)
class Services:
    """Shared by the API, the worker and the connector of one process. `requires_credentials`: there was a key or an
    issuer when the process started. `sealer` seals secrets; None without a key. `server` is the embedded
    Temporal server, if this process runs it.
    """

    settings: Settings
    config: SevenfoldConfig
    client: Client
    codec_keys: KeyRing
    access: AccessDirectory
    requires_credentials: bool
    event_ingest: EventIngest
    circuit_breakers: CircuitBreakers
    webhook_endpoints: EndpointDirectory
    quotas: ProcessQuotas
    sealer: Sealer | None
    server: EmbeddedTemporal | None = None
    eager_starts: EagerStarts = field(default_factory=EagerStarts)


def build_services(
    settings: Settings, config: SevenfoldConfig, client: Client, server: EmbeddedTemporal | None = None
) -> Services:
    """Builds the services over a client. Raises StartupError."""
    registry = TenantRegistryClient(client, settings.task_queue)
    access = AccessDirectory(registry, ConfiguredAccess.from_config(config.tenants))
    quotas = build_quotas(client, settings.task_queue, access)
    sealer = load_sealer(settings)
    return Services(
        settings,
        config,
        client,
        codec_keys=load_key_ring(settings),
        access=access,
        requires_credentials=config.has_credentials,
        event_ingest=build_event_ingest(client, settings, config, access, quotas, sealer),
        circuit_breakers=CircuitBreakers(client, settings.task_queue, config.circuit_configs),
        webhook_endpoints=EndpointDirectory(client),
        quotas=quotas,
        sealer=sealer,
        server=server,
    )


@asynccontextmanager
async def open_services(
    settings: Settings, config: SevenfoldConfig, *, embedded: bool = False
) -> AsyncIterator[Services]:
    """The services while the block runs, with an embedded Temporal server if `embedded`. Raises StartupError."""
    use_policy(LabelPolicy(config.metrics.tasks, config.metrics.tenants))
    keys = load_key_ring(settings)  # A mistake in it stops the start before the server starts.
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(exported_traces())
        server = None
        if embedded:
            stack.enter_context(lock_data_dir(settings.data_dir))
            server = EmbeddedTemporal(settings)
            await stack.enter_async_context(server)
        interceptors = Interceptors()
        client = await stack.enter_async_context(connect_temporal(settings, interceptors))
        if embedded:
            await ensure_retention(client, timedelta(days=settings.retention_days))
        await ensure_search_attributes(client)
        await check_open_workflows(client, keys, settings.task_queue)
        services = build_services(settings, config, client, server)
        stack.push_async_callback(services.quotas.aclose)
        interceptors.fair_starts.use_weights(services.access.find_weight)
        interceptors.run_keys.use_lineages(lambda key_id: services.access.latest.find_lineage(key_id))
        stored = await services.access.load()
        yield replace(
            services,
            requires_credentials=config.has_credentials or stored.has_keys,
            eager_starts=interceptors.eager_starts,
        )
