"""The agents' circuits as one process sees them, and what it tells of them: transitions only.

A circuit that is not closed is a workflow of its own (`CircuitBreaker`), whose memo every process reads; one that is
closed is none. What is read is kept for a moment.
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
from sevenfold.adapters.temporal.cancellation import raise_if_cancelled
from sevenfold.contracts.agent_config import CircuitConfig
from sevenfold.contracts.circuits import (
    CIRCUIT_MEMO,
    BreakerState,
    BreakerTimings,
    OpenCircuit,
    circuit_workflow_id,
    control_task_queue,
)
from sevenfold.contracts.verdicts import CircuitOpen

log = structlog.get_logger(__name__)

# What was read is good for so long, in seconds. It is believed for longer while it is read anew, so that hardly a
# call or a refusal waits for that.
_REFRESH_SECONDS = 0.5
_MAX_CLOSED_AGE_SECONDS = 10.0
_MAX_OPEN_AGE_SECONDS = 1.0

# When those come back who are told to wait while somebody else probes; and at how many a second they may.
_PROBE_RETRY_SECONDS = 1.0
_RETRIES_PER_SECOND = 40.0

RPC_TIMEOUT = timedelta(seconds=5)


@dataclass
class _CachedState:
    """What was last read of one agent's circuit."""

    window: FailureWindow
    state: OpenCircuit | None = None
    read_at: float = -_MAX_CLOSED_AGE_SECONDS
    refresh: asyncio.Task[None] | None = None
    # how many were refused until then: so many will come back
    rejected: int = 0
    rejected_until: datetime | None = None
    rejected_since: float = 0.0
    # a request was let through to probe, and when
    admitted_at: float = -_MAX_CLOSED_AGE_SECONDS
    probe_lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class CircuitBreakers:
    """One process's view of them all. Agents without a configuration here have no circuit."""

    def __init__(self, client: Client, task_queue: str, configs: Mapping[str, CircuitConfig]) -> None:
        self._client = client
        self._task_queue = control_task_queue(task_queue)
        self._configs = {name: config for name, config in configs.items() if config.enabled}
        self._cached: dict[str, _CachedState] = {}
        self._background: set[asyncio.Task[None]] = set()

    async def get_state(self, agent: str) -> OpenCircuit | None:
        """Half a second old at most, or None for a circuit that is closed."""
        return await self._state_within(agent, _REFRESH_SECONDS, _REFRESH_SECONDS)

    async def _state_for_call(self, agent: str) -> OpenCircuit | None:
        return await self._state_within(agent, _MAX_CLOSED_AGE_SECONDS, _REFRESH_SECONDS)

    async def _state_within(self, agent: str, max_closed_age: float, max_open_age: float) -> OpenCircuit | None:
        """The state, no older than so many seconds."""
        if agent not in self._configs:
            return None
        cached = self._cached_state(agent)
        age = time.monotonic() - cached.read_at
        if age >= _REFRESH_SECONDS:
            if cached.refresh is None or cached.refresh.done():
                cached.refresh = asyncio.create_task(self._refresh(agent, cached))
            if age >= (max_closed_age if cached.state is None else max_open_age):
                # one who leaves must not take the answer away from the others
                await asyncio.shield(cached.refresh)
        return cached.state

    async def is_closed(self, agent: str) -> bool:
        """Whether it may be called without more ado."""
        return await self._state_for_call(agent) is None

    async def retry_after(self, agent: str) -> float | None:
        """Seconds until a client who cannot wait may try again, or None if he may now. While the agent is to be
        probed, one a second may.
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
        """The state of an agent that may be called or probed. Raises CircuitOpen while it is left alone."""
        state, now = await self._state_for_call(agent), datetime.now(UTC)
        if state is not None and state.state_at(now) is BreakerState.OPEN:
            raise self._reject(self._cached_state(agent), (state.probe_after - now).total_seconds())
        return state

    async def admit(self, agent: str, call_id: str) -> str | None:
        """Lets a call through: None, or its name if it is the probe. Raises CircuitOpen.

        A call that is made again, since the worker that made it died, has the name that it had.
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

    def record_success(self, agent: str, probe_id: str | None) -> None:
        """A call did not fail: also one that the agent refused."""
        if agent not in self._configs:
            return
        cached = self._cached_state(agent)
        if probe_id is not None:
            cached.state, cached.read_at = None, time.monotonic()
            cached.window.clear()
            self._in_background(self._signal(agent, "close"))
        else:
            cached.window.record(failed=False)

    def record_failure(self, agent: str, probe_id: str | None) -> None:
        """A call failed, and the agent is to blame."""
        config = self._configs.get(agent)
        if config is None:
            return
        cached = self._cached_state(agent)
        if probe_id is not None:
            cached.read_at = -_MAX_CLOSED_AGE_SECONDS
            self._in_background(self._signal(agent, "probe_failed", probe_id))
            return
        if cached.state is None and cached.window.record(failed=True):
            cached.window.clear()
            timings = BreakerTimings(open_seconds=config.open_seconds, max_open_seconds=config.max_open_seconds)
            cached.state, cached.read_at = OpenCircuit.first_opening(timings, datetime.now(UTC)), time.monotonic()
            log.warning("an agent fails and is left alone", agent=agent, seconds=config.open_seconds)
            self._in_background(self._open_workflow(agent, cached.state))

    def release_probe(self, agent: str, probe_id: str | None) -> None:
        """A call ended without telling anything of the agent; a probe is then free for the next."""
        if probe_id is not None and agent in self._configs:
            self._in_background(self._signal(agent, "release_probe", probe_id))

    async def aclose(self) -> None:
        """Waits for what is still to be told."""
        await asyncio.gather(*self._background, return_exceptions=True)

    def _cached_state(self, agent: str) -> _CachedState:
        cached = self._cached.get(agent)
        if cached is None:
            config = self._configs[agent]
            window = FailureWindow(config.window_seconds, config.minimum_calls, config.failure_rate)
            cached = self._cached[agent] = _CachedState(window)
        return cached

    def _reject(self, cached: _CachedState, seconds: float) -> CircuitOpen:
        # They come back one after the other, the first of them to probe.
        until, now = cached.state.probe_after if cached.state else None, time.monotonic()
        spread = max(1.0, cached.rejected / _RETRIES_PER_SECOND)
        if until != cached.rejected_until or now - cached.rejected_since > spread:
            cached.rejected, cached.rejected_until, cached.rejected_since = 0, until, now
        cached.rejected += 1
        later = random.uniform(0.1, max(1.0, cached.rejected / _RETRIES_PER_SECOND))
        return CircuitOpen("The agent fails, and is left alone for a while.", retry_after=seconds + later)

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
                return  # what was known goes on to hold
        if cached.read_at > started_at:
            return  # this process has seen a transition meanwhile
        if cached.state is not None and state is None:
            cached.window.clear()
        cached.state, cached.read_at = state, started_at

    async def _acquire_probe(self, agent: str, call_id: str, cached: _CachedState) -> bool:
        cached.read_at = -_MAX_CLOSED_AGE_SECONDS  # whatever it was, it is something else then
        try:
            handle = self._client.get_workflow_handle(circuit_workflow_id(agent))
            await handle.execute_update("acquire_probe", call_id, rpc_timeout=RPC_TIMEOUT)
        except WorkflowUpdateFailedError:
            return False
        except (WorkflowUpdateRPCTimeoutOrCancelledError, RPCError):
            self.release_probe(agent, call_id)  # it may have been admitted all the same
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
                "CircuitBreaker",
                state,
                id=circuit_workflow_id(agent),
                task_queue=self._task_queue,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,  # another process was faster
                memo={CIRCUIT_MEMO: state},
                static_summary=f"{agent} fails",
            )
        except RPCError as error:
            log.warning("a circuit could not be opened for all", agent=agent, error=error.message)

    async def _signal(self, agent: str, signal: str, *arguments: str) -> None:
        try:
            await self._client.get_workflow_handle(circuit_workflow_id(agent)).signal(signal, args=arguments)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:  # it is closed already
                log.warning("a circuit could not be told", agent=agent, signal=signal, error=error.message)
