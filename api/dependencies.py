"""What every door needs: the Temporal client and a few names. Handlers get it, and the tenant, as parameters."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import quote

import structlog
from fastapi import Depends
from starlette.requests import HTTPConnection
from temporalio.client import Client

from sevenfold.adapters.agents.admission.circuit_breakers import CircuitBreakers
from sevenfold.adapters.events.activity_feed import ActivityFeed
from sevenfold.adapters.events.ingest import EventIngest
from sevenfold.adapters.streams.hub import StreamHubs
from sevenfold.adapters.temporal.disk_space import DiskSpace
from sevenfold.adapters.temporal.durations import Durations
from sevenfold.adapters.temporal.pollers import WorkerPollers
from sevenfold.adapters.temporal.shared_answers import SharedAnswers
from sevenfold.adapters.webhooks.sealing import Sealer
from sevenfold.contracts.agent import WorkflowTarget
from sevenfold.contracts.agent_config import AgentConfig
from sevenfold.contracts.config import BrokerConfig
from sevenfold.contracts.identity import DEFAULT_TENANT, build_workflow_id

log = structlog.get_logger(__name__)

_STATISTICS_SECONDS = 1.0

API_PREFIX = "/api/agent"


@dataclass(frozen=True)
class WebhookSettings:
    """How webhooks are taken: `schedule` is the pause before each attempt in seconds; without a sealer none are."""

    sealer: Sealer | None
    schedule: Sequence[float]
    allow_loopback: bool


@dataclass(frozen=True)
class Gateway:
    """Built once by the composition root."""

    client: Client
    task_queue: str
    agents: Mapping[str, AgentConfig]
    # Those of them that are workflows.
    workflow_targets: Mapping[str, WorkflowTarget]
    circuit_breakers: CircuitBreakers
    default_agent: str
    # Without a slash at its end; None where the Temporal UI's address is not known.
    ui_url: str | None
    durations: Durations
    streams: StreamHubs
    webhooks: WebhookSettings
    # Whether the ends of runs become events.
    publish_interactions: bool
    event_ingest: EventIngest
    activity_feed: ActivityFeed
    brokers: Mapping[str, BrokerConfig]
    pollers: WorkerPollers
    disk: DiskSpace
    # `GET /stats` and `GET /agents`: visibility is searched once for all who look at the same time.
    statistics: SharedAnswers = field(default_factory=lambda: SharedAnswers(seconds=_STATISTICS_SECONDS))
    _background: set[asyncio.Task[None]] = field(default_factory=set)

    def run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Has it done after the request that wanted it is over."""
        task = asyncio.create_task(_log_failure(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def ui_link(self, tenant: str, run_id: str) -> str | None:
        """The run's page in the Temporal UI."""
        if self.ui_url is None:
            return None
        run = quote(build_workflow_id(tenant, run_id), safe="")
        return f"{self.ui_url}/namespaces/{quote(self.client.namespace, safe='')}/workflows/{run}"


async def _log_failure(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception as error:
        log.warning("what a request left behind could not be done", error=str(error))


# Dependencies are async, all of them: FastAPI runs a plain function in a thread, a detour of its own per request.
async def _gateway(connection: HTTPConnection) -> Gateway:
    gateway: Gateway = connection.app.state.gateway
    return gateway


async def _tenant() -> str:
    # One tenant until keys are configured; ids, search attributes and fairness carry it already.
    return DEFAULT_TENANT


GatewayDep = Annotated[Gateway, Depends(_gateway)]
TenantDep = Annotated[str, Depends(_tenant)]
