"""The circuit breakers as one process sees them. Only transitions are written to Temporal.

A circuit that is not closed is a `CircuitBreaker` workflow whose memo every process reads; a closed one has no
workflow. Reads are cached.
"""

import asyncio
import random
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.agents.admission.failure_window import FailureWindow
from sevenfold.adapters.metrics.runs import count_circuit_change
from sevenfold.adapters.temporal.cancellation import raise_if_cancelled
from sevenfold.contracts import workflow_types
from sevenfold.contracts.agents.circuits import (
    CIRCUIT_MEMO,
    BreakerState,
    BreakerTimings,
    OpenCircuit,
    circuit_workflow_id,
    control_task_queue,
)
from sevenfold.contracts.agents.config import CircuitConfig
from sevenfold.contracts.agents.errors import CircuitOpen

log = structlog.get_logger(__name__)

# Cache times in seconds. An entry older than 0.5 s is refreshed in the background; a call waits for the refresh only
# if a closed state is older than 10 s or an open one older than 1 s.
_REFRESH_SECONDS = 0.5
_MAX_CLOSED_AGE_SECONDS = 10.0
_MAX_OPEN_AGE_SECONDS = 1.0

# `retry_after` while another call probes, in seconds; and the rate at which rejected callers may return, per second.
_PROBE_RETRY_SECONDS = 1.0
_RETRIES_PER_SECOND = 40.0

RPC_TIMEOUT = timedelta(seconds=5)


@dataclass
class _CachedState:
    """The cached state of one agent's circuit; `state` is None for a closed circuit.

    Invariants:

    - `read_at` is the monotonic time of the read, or of this process's own later transition. A refresh that started
      earlier does not overwrite it.
    - `window` counts failures only while the circuit is closed, and is cleared when it opens or closes.
    - At most one `refresh` runs.
    - Only the holder of `probe_lock` requests the probe for this process.
    """

    window: FailureWindow
    state: OpenCircuit | None = None
    read_at: float = -_MAX_CLOSED_AGE_SECONDS
    refresh: asyncio.Task[None] | None = None
    # Rejections since `rejected_since`, while the circuit opens at `rejected_until`: as many callers will return.
    rejected: int = 0
    rejected_until: datetime | None = None
    rejected_since: float = 0.0
    # When `retry_after` last admitted a request as a possible probe.
    admitted_at: float = -_MAX_CLOSED_AGE_SECONDS
    probe_lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class CircuitBreakers:
    """The circuit breakers of one process. Agents without a configuration here have none.

    States (`BreakerState`): closed → open when the failure window exceeds its rate; open → half-open at
    `probe_after`; half-open → closed when the probe succeeds, → open for twice as long when it fails.
    `OpenCircuit.state_at` derives open and half-open from the time.
    """

    def __init__(self, client: Client, task_queue: str, configs: Mapping[str, CircuitConfig]) -> None:
        self._client = client
        self._task_queue = control_task_queue(task_queue)
        self._configs = {name: config for name, config in configs.items() if config.enabled}
        self._cached: dict[str, _CachedState] = {}
        self._background: set[asyncio.Task[None]] = set()

    async def get_state(self, agent: str) -> OpenCircuit | None:
        """Returns the state, at most 0.5 s old; None for a closed circuit."""
        return await self._state_within(agent, _REFRESH_SECONDS, _REFRESH_SECONDS)

    async def _state_for_call(self, agent: str) -> OpenCircuit | None:
        return await self._state_within(agent, _MAX_CLOSED_AGE_SECONDS, _REFRESH_SECONDS)

    async def _state_within(self, agent: str, max_closed_age: float, max_open_age: float) -> OpenCircuit | None:
        """Returns the cached state; waits for a refresh if the state is older than allowed (in seconds)."""
        if agent not in self._configs:
            return None
        cached = self._cached_state(agent)
        age = time.monotonic() - cached.read_at
        if age >= _REFRESH_SECONDS:
            if cached.refresh is None or cached.refresh.done():
                cached.refresh = asyncio.create_task(self._refresh(agent, cached))
            if age >= (max_closed_age if cached.state is None else max_open_age):
                # Shielded: a cancelled waiter must not cancel the refresh for the others.
                await asyncio.shield(cached.refresh)
        return cached.state

    async def is_closed(self, agent: str) -> bool:
        """Whether the circuit is closed."""
        return await self._state_for_call(agent) is None

    async def retry_after(self, agent: str) -> float | None:
        """Seconds until a client that cannot wait may retry, or None if it may call now. While the circuit is
        half-open, one request a second may.
        """
        state, now = (
            await self._state_within(agent, _MAX_CLOSED_AGE_SECONDS, _MAX_OPEN_AGE_SECONDS),
            datetime.now(UTC),
        )
        if state is None:
            return None
        if state.state_at(now) is BreakerState.OPEN:
            return (state.probe_after - now).total_seconds()
        cached = self._cached_state(agent)
        if state.is_being_probed(now) or time.monotonic() - cached.admitted_at < _PROBE_RETRY_SECONDS:
            return _PROBE_RETRY_SECONDS
        cached.admitted_at = time.monotonic()
        return None

    async def check(self, agent: str) -> OpenCircuit | None:
        """Returns the state of a circuit that is closed or half-open. Raises CircuitOpen for an open one."""
        state, now = await self._state_for_call(agent), datetime.now(UTC)
        if state is not None and state.state_at(now) is BreakerState.OPEN:
            raise self._reject(self._cached_state(agent), (state.probe_after - now).total_seconds())
        return state

    async def admit(self, agent: str, call_id: str) -> str | None:
        """Admits a call: returns None, or `call_id` if the call is the probe. Raises CircuitOpen.

        A call that is repeated after its worker died has the same `call_id`, and so keeps its probe.
        """
        state = await self.check(agent)
        if state is None:
            return None
        cached = self._cached_state(agent)
        if (
            state.probe_id == call_id or not state.is_being_probed(datetime.now(UTC))
        ) and not cached.probe_lock.locked():
            async with cached.probe_lock:
                if await self._acquire_probe(agent, call_id, cached):
                    return call_id
        if await self.is_closed(agent):
            return None
        raise self._reject(cached, _PROBE_RETRY_SECONDS)

    def record_success(self, agent: str, tenant: str, probe_id: str | None) -> None:
        """Records a tenant's call that did not fail; a call that the agent rejected counts too. Closes the circuit
        after a probe.
        """
        if agent not in self._configs:
            return
        cached = self._cached_state(agent)
        if probe_id is not None:
            cached.state, cached.read_at = None, time.monotonic()
            cached.window.clear()
            count_circuit_change(agent, "closed")
            self._in_background(self._signal(agent, "close"))
        else:
            cached.window.record(tenant, failed=False)

    def record_failure(self, agent: str, tenant: str, probe_id: str | None) -> None:
        """Records a failure of the agent in a tenant's call. Opens the circuit if too many calls failed, or for
        longer after a probe.
        """
        config = self._configs.get(agent)
        if config is None:
            return
        cached = self._cached_state(agent)
        if probe_id is not None:
            cached.read_at = -_MAX_CLOSED_AGE_SECONDS
            count_circuit_change(agent, BreakerState.OPEN)
            self._in_background(self._signal(agent, "probe_failed", probe_id))
            return
        if cached.state is None and cached.window.record(tenant, failed=True):
            cached.window.clear()
            timings = BreakerTimings(open_seconds=config.open_seconds, max_open_seconds=config.max_open_seconds)
            cached.state, cached.read_at = OpenCircuit.first_opening(timings, datetime.now(UTC)), time.monotonic()
            count_circuit_change(agent, BreakerState.OPEN)
            log.warning("circuit opened", agent=agent, open_seconds=config.open_seconds)
            self._in_background(self._open_workflow(agent, cached.state))

    def release_probe(self, agent: str, probe_id: str | None) -> None:
        """Records a call without a result for the breaker. The next call may be the probe."""
        if probe_id is not None and agent in self._configs:
            self._in_background(self._signal(agent, "release_probe", probe_id))

    async def aclose(self) -> None:
        """Waits for signals in flight."""
        await asyncio.gather(*self._background, return_exceptions=True)

    def _cached_state(self, agent: str) -> _CachedState:
        cached = self._cached.get(agent)
        if cached is None:
            config = self._configs[agent]
            window = FailureWindow(config.window_seconds, config.minimum_calls, config.failure_rate)
            cached = self._cached[agent] = _CachedState(window)
        return cached

    def _reject(self, cached: _CachedState, seconds: float) -> CircuitOpen:
        # Spreads the returning callers; the first of them probes.
        until, now = cached.state.probe_after if cached.state else None, time.monotonic()
        spread = max(1.0, cached.rejected / _RETRIES_PER_SECOND)
        if until != cached.rejected_until or now - cached.rejected_since > spread:
            cached.rejected, cached.rejected_until, cached.rejected_since = 0, until, now
        cached.rejected += 1
        later = random.uniform(0.1, max(1.0, cached.rejected / _RETRIES_PER_SECOND))
        return CircuitOpen(
            "The agent's circuit breaker is open, because its calls failed.", retry_after=seconds + later
        )

    async def _refresh(self, agent: str, cached: _CachedState) -> None:
        started_at = time.monotonic()
        state: OpenCircuit | None = None
        try:
            description = await self._client.get_workflow_handle(circuit_workflow_id(agent)).describe(
                rpc_timeout=RPC_TIMEOUT
            )
            if description.status is WorkflowExecutionStatus.RUNNING:
                state = await description.memo_value(CIRCUIT_MEMO, type_hint=OpenCircuit)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                return  # Keep the cached state.
        if cached.read_at > started_at:
            return  # This process made a transition meanwhile.
        if cached.state is not None and state is None:
            cached.window.clear()
        cached.state, cached.read_at = state, started_at

    async def _acquire_probe(self, agent: str, call_id: str, cached: _CachedState) -> bool:
        cached.read_at = -_MAX_CLOSED_AGE_SECONDS  # The update changes the state, so the cache is outdated.
        try:
            handle = self._client.get_workflow_handle(circuit_workflow_id(agent))
            await handle.execute_update("acquire_probe", call_id, rpc_timeout=RPC_TIMEOUT)
        except WorkflowUpdateFailedError:
            return False
        except (WorkflowUpdateRPCTimeoutOrCancelledError, RPCError):
            self.release_probe(agent, call_id)  # The update may have been accepted nevertheless.
            raise_if_cancelled()
            return False
        return True

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _open_workflow(self, agent: str, state: OpenCircuit) -> None:
        try:
            await self._client.start_workflow(
                workflow_types.CIRCUIT_BREAKER,
                state,
                id=circuit_workflow_id(agent),
                task_queue=self._task_queue,
                # Another process may have opened it already.
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                memo={CIRCUIT_MEMO: state},
                static_summary=f"circuit of {agent}",
            )
        except RPCError as error:
            log.warning("starting a circuit breaker workflow failed", agent=agent, error=error.message)

    async def _signal(self, agent: str, signal: str, *arguments: str) -> None:
        try:
            await self._client.get_workflow_handle(circuit_workflow_id(agent)).signal(signal, args=arguments)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:  # The circuit is closed already.
                log.warning("signalling a circuit breaker failed", agent=agent, signal=signal, error=error.message)
