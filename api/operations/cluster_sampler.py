"""Metrics of what all processes share: task queues, open runs, deliveries, dead letters, circuit breakers.

Each API process that is scraped asks Temporal every 10 s, so every process shows the same values.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from prometheus_client import CollectorRegistry, Gauge
from temporalio.api.workflowservice.v1 import CountWorkflowExecutionsRequest
from temporalio.client import Client
from temporalio.service import RPCError

from sevenfold.adapters.agents.admission.circuit_breakers import CircuitBreakers
from sevenfold.adapters.temporal.pollers import is_polling
from sevenfold.adapters.temporal.task_queues import (
    ACTIVITY_TASKS,
    WORKFLOW_TASKS,
    build_of,
    describe_task_queue,
    routing_of,
)
from sevenfold.api.http.time_params import to_query_time
from sevenfold.contracts import workflow_types
from sevenfold.contracts.agents.circuits import BreakerState
from sevenfold.contracts.events.dead_letters import IS_DEAD, LETTER_WORKFLOW_TYPES
from sevenfold.contracts.runs.run import WORKFLOW_TYPES
from sevenfold.contracts.webhooks.delivery import ENDPOINT_MEMO, EndpointState

log = structlog.get_logger(__name__)

# Shown by processes that sample: a gauge without labels shows 0 from the start.
CLUSTER_REGISTRY = CollectorRegistry()


def _gauge(name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
    return Gauge(name, text, labels, registry=CLUSTER_REGISTRY)


_UP = _gauge("sevenfold_temporal_up", "Whether Temporal answered the last time this process asked.")
_DEPTH = _gauge("sevenfold_queue_depth", "Tasks that wait for a worker.", ["task_queue", "kind"])
_AGE = _gauge("sevenfold_queue_oldest_seconds", "Age of the oldest task that waits.", ["task_queue", "kind"])
_POLLERS = _gauge(
    "sevenfold_queue_pollers",
    "Workers that poll the queue, of the build that gets new runs and has the fewest.",
    ["task_queue", "kind"],
)
_OPEN_RUNS = _gauge("sevenfold_runs_open", "Runs that have not ended.", ["pattern"])
_OPEN_DELIVERIES = _gauge("sevenfold_webhook_deliveries_open", "Webhooks that are not delivered yet.")
_OLDEST_DELIVERY = _gauge("sevenfold_webhook_oldest_seconds", "Age of the oldest webhook that is not delivered.")
_PAUSED = _gauge("sevenfold_webhook_receivers_paused", "Hosts whose deliveries are paused because they fail.")
_DEAD_LETTERS = _gauge("sevenfold_dead_letters", "Dead letters of webhooks and events.", ["kind"])
_WAITING_KEYS = _gauge("sevenfold_event_ordering_keys", "Ordering keys with reactions that run or wait.")
_CIRCUITS = _gauge("sevenfold_circuit_state", "0 closed, 1 half-open, 2 open.", ["agent"])

_SHARED: Sequence[Gauge] = (
    _DEPTH, _AGE, _POLLERS, _OPEN_RUNS, _DEAD_LETTERS, _CIRCUITS,
)  # fmt: skip

_WITHOUT_LABELS = (_OPEN_DELIVERIES, _OLDEST_DELIVERY, _PAUSED, _WAITING_KEYS)

# Sampling continues in the background for as long as scrapes come, so that none waits for it.
_INTERVAL_SECONDS, _IDLE_SECONDS = 10.0, 120.0
_TIMEOUT_SECONDS, _SAMPLE_SECONDS = 2.0, 8.0
_RPC_TIMEOUT = timedelta(seconds=_TIMEOUT_SECONDS)
_MAX_RECEIVERS = 500
_STATES = {None: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}
_DEAD_LETTER_TYPES = [("webhook", workflow_types.WEBHOOK_DELIVERY), *LETTER_WORKFLOW_TYPES.items()]
_KINDS = {WORKFLOW_TASKS: "workflow", ACTIVITY_TASKS: "activity"}


class ClusterSampler:
    """Sets the gauges of what Temporal knows. `agents`: those that have a circuit breaker."""

    def __init__(
        self, client: Client, task_queues: Sequence[str], breakers: CircuitBreakers, agents: Iterable[str]
    ) -> None:
        self._client = client
        self._task_queues = task_queues
        self._breakers = breakers
        self._agents = list(agents)
        self._scraped_at = float("-inf")
        self._sampling: asyncio.Task[None] | None = None

    async def refresh(self) -> None:
        """Keeps the gauges up to date from now on; waits for them after a pause. Raises nothing."""
        self._scraped_at = time.monotonic()
        if self._sampling is None or self._sampling.done():
            await self._sample()
        if self._sampling is None or self._sampling.done():
            self._sampling = asyncio.create_task(self._sample_periodically())

    async def aclose(self) -> None:
        """Ends the sampling."""
        if self._sampling is not None:
            self._sampling.cancel()
            await asyncio.gather(self._sampling, return_exceptions=True)

    async def _sample_periodically(self) -> None:
        while time.monotonic() - self._scraped_at < _IDLE_SECONDS:
            await asyncio.sleep(_INTERVAL_SECONDS)
            await self._sample()

    async def _sample(self) -> None:
        """Without Temporal, nothing is shown of it."""
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                await self._sample_queue(self._task_queues[0])
            _UP.set(1)
        except (RPCError, TimeoutError) as error:
            log.debug("Temporal does not answer", error=str(error))
            _UP.set(0)
            for gauge in _SHARED:
                gauge.clear()
            for gauge in _WITHOUT_LABELS:
                gauge.set(math.nan)
            return
        async with asyncio.TaskGroup() as group:
            for sample in self._samples():
                group.create_task(_try(sample))

    def _samples(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            partial(self._sample_each, self._sample_queue, self._task_queues[1:]),
            partial(self._sample_each, self._sample_circuit, self._agents),
            self._sample_open_runs,
            self._sample_deliveries,
            self._sample_receivers,
            self._sample_dead_letters,
        ]

    async def _sample_each(self, sample: Callable[[str], Awaitable[None]], names: Sequence[str]) -> None:
        for name in names:
            await sample(name)

    async def _sample_queue(self, name: str) -> None:
        for kind, label in _KINDS.items():
            found = await describe_task_queue(
                self._client, name, kind, timeout=_RPC_TIMEOUT, report_stats=True, retry=False
            )
            targets = routing_of(found).targets
            serving = Counter(build_of(one) for one in found.pollers if is_polling(one))
            age = found.stats.approximate_backlog_age.ToTimedelta().total_seconds()
            _DEPTH.labels(name, label).set(found.stats.approximate_backlog_count)
            _AGE.labels(name, label).set(age)
            # A build that gets new runs and has no worker leaves them waiting, whatever the others have.
            _POLLERS.labels(name, label).set(min(serving[build] for build in targets))

    async def _sample_circuit(self, agent: str) -> None:
        circuit = await self._breakers.get_state(agent)
        _CIRCUITS.labels(agent).set(_STATES[None if circuit is None else circuit.state_at(datetime.now(UTC))])

    async def _sample_open_runs(self) -> None:
        for pattern, workflow_type in WORKFLOW_TYPES.items():
            _OPEN_RUNS.labels(pattern).set(await self._count(_running(workflow_type)))

    async def _sample_deliveries(self) -> None:
        deliveries = _running(workflow_types.WEBHOOK_DELIVERY)
        count = await self._count(deliveries)
        _OPEN_DELIVERIES.set(count)
        _OLDEST_DELIVERY.set(await self._oldest_seconds(deliveries) if count else 0)
        _WAITING_KEYS.set(await self._count(_running(workflow_types.ORDERING_SEMAPHORE)))

    async def _sample_receivers(self) -> None:
        paused = 0
        receivers = self._client.list_workflows(
            _running(workflow_types.ENDPOINT_HEALTH), limit=_MAX_RECEIVERS, page_size=100
        )
        async for receiver in receivers:
            paused += (await receiver.memo_value(ENDPOINT_MEMO, EndpointState(), type_hint=EndpointState)).is_paused
        _PAUSED.set(paused)

    async def _sample_dead_letters(self) -> None:
        for kind, workflow_type in _DEAD_LETTER_TYPES:
            _DEAD_LETTERS.labels(kind).set(await self._count(f"WorkflowType = '{workflow_type}' AND {IS_DEAD}"))

    async def _oldest_seconds(self, query: str) -> float:
        """Returns the age of the oldest workflow, up to a tenth less. Visibility cannot sort, so it is searched."""
        age, factor = 1.0, 2.0
        while factor > 1.05:
            started_before = to_query_time(datetime.now(UTC) - timedelta(seconds=age * factor))
            if await self._count(f"{query} AND StartTime < '{started_before}'"):
                age *= factor
            else:
                factor **= 0.5
        return age

    async def _count(self, query: str) -> int:
        request = CountWorkflowExecutionsRequest(namespace=self._client.namespace, query=query)
        service = self._client.workflow_service
        return (await service.count_workflow_executions(request, retry=False, timeout=_RPC_TIMEOUT)).count


async def _try(sample: Callable[[], Awaitable[None]]) -> None:
    """Samples for up to 8 s; what fails stays as it was, and is logged."""
    try:
        async with asyncio.timeout(_SAMPLE_SECONDS):
            await sample()
    except Exception as error:
        log.warning("some metrics of Temporal cannot be read", error=repr(error)[:200])


def _running(workflow_type: str) -> str:
    return f"WorkflowType = '{workflow_type}' AND ExecutionStatus = 'Running'"
