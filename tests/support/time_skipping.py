"""Deliveries under a Temporal server whose time can be skipped: days in seconds."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import WorkflowExecutionDescription
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from sevenfold.activities.runs.agent_calls import AgentCalls
from sevenfold.activities.runs.call_meter import CallMeter
from sevenfold.activities.runs.failures import FailureRules
from sevenfold.activities.webhooks.attempts import WebhookAttempts
from sevenfold.activities.webhooks.endpoint_health import EndpointHealthActivities
from sevenfold.activities.webhooks.targets import DeliveryTargets
from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.access.registry import TenantRegistryClient
from sevenfold.adapters.access.snapshot import ConfiguredAccess
from sevenfold.adapters.agents.admission.admission import AdmissionControl
from sevenfold.adapters.agents.admission.circuit_breakers import CircuitBreakers
from sevenfold.adapters.encryption.sealing import Sealer
from sevenfold.adapters.outbound.guarded_http import guarded_client
from sevenfold.adapters.streams.hub import StreamHubs
from sevenfold.adapters.streams.temporal.log import TemporalStreamLog
from sevenfold.adapters.temporal.disk_space import DiskSpace
from sevenfold.adapters.webhooks.endpoint_directory import EndpointDirectory
from sevenfold.adapters.webhooks.posting import TIMEOUT_SECONDS, WebhookPoster
from sevenfold.adapters.webhooks.sealed_urls import seal_url
from sevenfold.contracts.agents.interface import AgentRequest
from sevenfold.contracts.runs.run import RunInput
from sevenfold.contracts.webhooks.delivery import (
    DEFAULT_SCHEDULE,
    LOG_MEMO,
    DeliveryLog,
    Webhook,
    delivery_workflow_id,
)
from sevenfold.contracts.webhooks.endpoints import (
    EndpointSecret,
    EndpointsState,
    WebhookEndpoint,
    endpoint_memos,
    endpoint_sealing_context,
    endpoints_workflow_id,
)
from sevenfold.runtime.config.config_file import load_config
from sevenfold.runtime.quotas import build_quotas
from sevenfold.runtime.temporal.connection import build_plugin
from sevenfold.runtime.temporal.namespace import ATTRIBUTE_TYPES
from sevenfold.runtime.temporal.payloads import directory_storage
from sevenfold.worker import DELIVERY_WORKFLOWS, load_agent_registry
from sevenfold.workflows.polling import Polling
from sevenfold.workflows.webhooks.endpoints import WebhookEndpoints
from tests.support.receivers import SECRET, Receiver, running_receiver
from tests.support.stack import make_settings

_SERVER = Path(sys.executable).parent / "temporal-test-server"
_SEALER = Sealer([bytes(32)])
_NUMBERS = count()


@dataclass
class Days:
    """A receiver, and a gateway's worker whose clock is set forward by `skip`."""

    environment: WorkflowEnvironment
    receiver: Receiver

    async def skip(self, **span: float) -> None:
        await self.environment.sleep(timedelta(**span))

    async def skip_to_next_attempt(self, delivery: str) -> None:
        """No further: skipping stalls in this server while an attempt is made. Once a delivery has ended it skips
        nothing any more, and this takes as long as the pause does.
        """
        _, log = await self.described(delivery)
        if log.next_attempt_at is not None:  # else it came by itself meanwhile, as real time goes on here too
            pause = log.next_attempt_at - await self.environment.get_current_time()
            await self.environment.sleep(max(timedelta(0), pause))

    async def stored_endpoint(self) -> str:
        """Stores an endpoint of the receiver; returns its id."""
        endpoint_id = f"whe_{'a' * 26}"
        context = endpoint_sealing_context("default", endpoint_id)
        endpoint = WebhookEndpoint(
            id=endpoint_id,
            name="stored",
            sealed_url=seal_url(_SEALER, self.receiver.url(), owner=context),
            host="127.0.0.1",
            created_at=datetime.now(UTC),
            secrets=[EndpointSecret(sealed=_SEALER.seal(SECRET, context=context))],
        )
        state = EndpointsState(endpoints={endpoint_id: endpoint})
        await self.environment.client.start_workflow(
            WebhookEndpoints.run,
            state,
            id=endpoints_workflow_id("default"),
            task_queue="webhooks",
            memo=endpoint_memos(state),
        )
        return endpoint_id

    async def delivered(self, schedule: tuple[float, ...] = DEFAULT_SCHEDULE, endpoint_id: str | None = None) -> str:
        """Completes a run that has a webhook; returns the workflow id of its delivery."""
        run = f"default:task_{next(_NUMBERS):026d}".replace("0", "a").replace("1", "b")
        webhook = Webhook(
            sealed_url="" if endpoint_id else seal_url(_SEALER, self.receiver.url(), owner=run),
            host="127.0.0.1",
            sealed_secrets="" if endpoint_id else _SEALER.seal(json.dumps([SECRET]), context=run),
            schedule=list(schedule),
            task_queue="webhooks",
            endpoint_id=endpoint_id,
        )
        request = AgentRequest(run_id=run.partition(":")[2], task="x", query="hi")
        ended = RunInput(agent="echo", request=request, timeout=60, webhook=webhook)
        # while it waits for a run the clock may run ahead, to the next attempts
        with self.environment.auto_time_skipping_disabled():
            await self.environment.client.execute_workflow(Polling.run, ended, id=run, task_queue="runs")
        return delivery_workflow_id(run)

    async def attempted(self, delivery: str, count: int) -> None:
        """Waits until the delivery's log holds `count` attempts."""
        async with asyncio.timeout(30):
            while len((await self.described(delivery))[1].attempts) < count:
                await asyncio.sleep(0.05)

    async def described(self, delivery: str) -> tuple[WorkflowExecutionDescription, DeliveryLog]:
        description = await self.environment.client.get_workflow_handle(delivery).describe()
        return description, await description.memo_value(LOG_MEMO, type_hint=DeliveryLog)


@asynccontextmanager
async def days(directory: Path) -> AsyncIterator[Days]:
    """The parts of a worker that a run and its delivery need."""
    settings = make_settings(directory)
    async with AsyncExitStack() as is_open:
        environment = await is_open.enter_async_context(
            await WorkflowEnvironment.start_time_skipping(
                test_server_existing_path=str(_SERVER), plugins=[build_plugin(directory_storage(settings))]
            )
        )
        client = environment.client
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=client.namespace, search_attributes=ATTRIBUTE_TYPES)
        )
        receiver = await is_open.enter_async_context(running_receiver())
        http = await is_open.enter_async_context(guarded_client(allow_loopback=True, timeout=TIMEOUT_SECONDS))
        endpoints = EndpointDirectory(client)
        receivers = EndpointHealthActivities(client, endpoints)
        access = AccessDirectory(TenantRegistryClient(client, "runs"), ConfiguredAccess({}, {}))
        attempts = WebhookAttempts(
            client, WebhookPoster(http), DeliveryTargets(_SEALER, receivers, endpoints), access
        )
        streams = StreamHubs(TemporalStreamLog(client, "runs"), has_local_worker=True)
        registry = load_agent_registry(settings, load_config(settings.config))
        quotas = build_quotas(client, "runs", access)
        is_open.push_async_callback(quotas.aclose)
        admission = AdmissionControl(CircuitBreakers(client, settings.task_queue, {}), {}, quotas.budgets.check_call)
        calls = AgentCalls(
            registry,
            admission,
            streams,
            DiskSpace(None),
            CallMeter(quotas.meter, {}),
            rules=FailureRules(),
            inline_timeout=timedelta(seconds=0.5),
            max_calls=10,
        )
        is_open.push_async_callback(calls.close)
        activities = [attempts.attempt_delivery, receivers.report_endpoint]
        await is_open.enter_async_context(
            Worker(client, task_queue="webhooks", workflows=DELIVERY_WORKFLOWS, activities=activities)
        )
        await is_open.enter_async_context(
            Worker(client, task_queue="runs", workflows=[Polling], activities=[calls.call_agent])
        )
        yield Days(environment, receiver)
