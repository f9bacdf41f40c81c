"""The agents' circuits as one process sees them, and what it tells of them: transitions only.

A circuit that is not closed is a workflow of its own (`AgentCircuit`), whose memo every process reads; one that is
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

from adapters.agents.failure_window import FailureWindow
from adapters.cancellation import raise_if_cancelled
from contracts.agent_config import CircuitConfig
from contracts.circuits import (
    CIRCUIT_STATE,
    CircuitState,
    CircuitTerms,
    Phase,
    circuit_of,
    control_queue,
)
from contracts.verdicts import CircuitOpen

log = structlog.get_logger(__name__)

# What was read is good for so long, in seconds. It is believed for longer while it is read anew, so that hardly a
# call or a refusal waits for that.
_FRESH = 0.5
_BELIEVED = 10.0
_OPEN_BELIEVED = 1.0

# When those come back who are told to wait while somebody else probes; and at how many a second they may.
_PROBING_PAUSE = 1.0
_RETURNING_PER_SECOND = 40.0

RPC_TIMEOUT = timedelta(seconds=5)


@dataclass
class _Seen:
    """What was last read of one agent's circuit."""

    window: FailureWindow
    state: CircuitState | None = None
    at: float = -_BELIEVED
    reading: asyncio.Task[None] | None = None
    # how many were refused until then: so many will come back
    refused: int = 0
    refused_until: datetime | None = None
    refused_since: float = 0.0
    # a request was let through to probe, and when
    let_through_at: float = -_BELIEVED
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Circuits:
    """One process's view of them all. Agents without a configuration here have no circuit."""

    def __init__(self, client: Client, task_queue: str, configs: Mapping[str, CircuitConfig]) -> None:
        self._client = client
        self._task_queue = control_queue(task_queue)
        self._configs = {name: config for name, config in configs.items() if config.enabled}
        self._seen: dict[str, _Seen] = {}
        self._telling: set[asyncio.Task[None]] = set()

    async def state(self, agent: str) -> CircuitState | None:
        """Half a second old at most, or None for a circuit that is closed."""
        return await self._read_within(agent, _FRESH, _FRESH)

    async def _for_a_call(self, agent: str) -> CircuitState | None:
        return await self._read_within(agent, _BELIEVED, _FRESH)

    async def _read_within(self, agent: str, closed: float, not_closed: float) -> CircuitState | None:
        """The state, no older than so many seconds."""
        if agent not in self._configs:
            return None
        seen = self._of(agent)
        age = time.monotonic() - seen.at
        if age >= _FRESH:
            if seen.reading is None or seen.reading.done():
                seen.reading = asyncio.create_task(self._read(agent, seen))
            if age >= (closed if seen.state is None else not_closed):
                # one who leaves must not take the answer away from the others
                await asyncio.shield(seen.reading)
        return seen.state

    async def closed(self, agent: str) -> bool:
        """Whether it may be called without more ado."""
        return await self._for_a_call(agent) is None

    async def refusal(self, agent: str) -> float | None:
        """Seconds until a client who cannot wait may try again, or None if he may now. While the agent is to be
        probed, one a second may.
        """
        state, now = await self._read_within(agent, _BELIEVED, _OPEN_BELIEVED), datetime.now(UTC)
        if state is None:
            return None
        if state.phase(now) is Phase.OPEN:
            return (state.until - now).total_seconds()
        seen = self._of(agent)
        if state.probed(now) or time.monotonic() - seen.let_through_at < _PROBING_PAUSE:
            return _PROBING_PAUSE
        seen.let_through_at = time.monotonic()
        return None

    async def check(self, agent: str) -> CircuitState | None:
        """The state of an agent that may be called or probed. Raises CircuitOpen while it is left alone."""
        state, now = await self._for_a_call(agent), datetime.now(UTC)
        if state is not None and state.phase(now) is Phase.OPEN:
            raise self._refused(self._of(agent), (state.until - now).total_seconds())
        return state

    async def admitted(self, agent: str, name: str) -> str | None:
        """Lets a call through: None, or its name if it is the probe. Raises CircuitOpen.

        A call that is made again, since the worker that made it died, has the name that it had.
        """
        state = await self.check(agent)
        if state is None:
            return None
        seen = self._of(agent)
        if (state.probe == name or not state.probed(datetime.now(UTC))) and not seen.asking.locked():
            async with seen.asking:
                if await self._may_probe(agent, name, seen):
                    return name
        if await self.closed(agent):
            return None
        raise self._refused(seen, _PROBING_PAUSE)

    def succeeded(self, agent: str, probe: str | None) -> None:
        """A call did not fail: also one that the agent refused."""
        if agent not in self._configs:
            return
        seen = self._of(agent)
        if probe is not None:
            seen.state, seen.at = None, time.monotonic()
            seen.window.clear()
            self._tell(self._signal(agent, "close"))
        else:
            seen.window.add(failed=False)

    def failed(self, agent: str, probe: str | None) -> None:
        """A call failed, and the agent is to blame."""
        config = self._configs.get(agent)
        if config is None:
            return
        seen = self._of(agent)
        if probe is not None:
            seen.at = -_BELIEVED
            self._tell(self._signal(agent, "probe_failed", probe))
            return
        if seen.state is None and seen.window.add(failed=True):
            seen.window.clear()
            terms = CircuitTerms(pause=config.pause, longest_pause=config.longest_pause)
            seen.state, seen.at = CircuitState.opened(terms, datetime.now(UTC)), time.monotonic()
            log.warning("an agent fails and is left alone", agent=agent, seconds=config.pause)
            self._tell(self._open(agent, seen.state))

    def left(self, agent: str, probe: str | None) -> None:
        """A call ended without telling anything of the agent; a probe is then free for the next."""
        if probe is not None and agent in self._configs:
            self._tell(self._signal(agent, "probe_given_up", probe))

    async def aclose(self) -> None:
        """Waits for what is still to be told."""
        await asyncio.gather(*self._telling, return_exceptions=True)

    def _of(self, agent: str) -> _Seen:
        seen = self._seen.get(agent)
        if seen is None:
            config = self._configs[agent]
            window = FailureWindow(config.window, config.minimum_calls, config.failure_rate)
            seen = self._seen[agent] = _Seen(window)
        return seen

    def _refused(self, seen: _Seen, seconds: float) -> CircuitOpen:
        # They come back one after the other, the first of them to probe.
        until, now = seen.state.until if seen.state else None, time.monotonic()
        spread = max(1.0, seen.refused / _RETURNING_PER_SECOND)
        if until != seen.refused_until or now - seen.refused_since > spread:
            seen.refused, seen.refused_until, seen.refused_since = 0, until, now
        seen.refused += 1
        later = random.uniform(0.1, max(1.0, seen.refused / _RETURNING_PER_SECOND))
        return CircuitOpen("The agent fails, and is left alone for a while.", retry_after=seconds + later)

    async def _read(self, agent: str, seen: _Seen) -> None:
        begun = time.monotonic()
        state: CircuitState | None = None
        try:
            description = await self._client.get_workflow_handle(circuit_of(agent)).describe(rpc_timeout=RPC_TIMEOUT)
            if description.status is WorkflowExecutionStatus.RUNNING:
                state = await description.memo_value(CIRCUIT_STATE, type_hint=CircuitState)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                return  # what was known goes on to hold
        if seen.at > begun:
            return  # this process has seen a transition meanwhile
        if seen.state is not None and state is None:
            seen.window.clear()
        seen.state, seen.at = state, begun

    async def _may_probe(self, agent: str, name: str, seen: _Seen) -> bool:
        seen.at = -_BELIEVED  # whatever it was, it is something else then
        try:
            handle = self._client.get_workflow_handle(circuit_of(agent))
            await handle.execute_update("admit", name, rpc_timeout=RPC_TIMEOUT)
        except WorkflowUpdateFailedError:
            return False
        except (WorkflowUpdateRPCTimeoutOrCancelledError, RPCError):
            self.left(agent, name)  # it may have been admitted all the same
            raise_if_cancelled()
            return False
        return True

    def _tell(self, telling: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(telling)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _open(self, agent: str, state: CircuitState) -> None:
        try:
            await self._client.start_workflow(
                "AgentCircuit",
                state,
                id=circuit_of(agent),
                task_queue=self._task_queue,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,  # another process was faster
                memo={CIRCUIT_STATE: state},
                static_summary=f"{agent} fails",
            )
        except RPCError as error:
            log.warning("a circuit could not be opened for all", agent=agent, error=error.message)

    async def _signal(self, agent: str, signal: str, *says: str) -> None:
        try:
            await self._client.get_workflow_handle(circuit_of(agent)).signal(signal, args=says)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:  # it is closed already
                log.warning("a circuit could not be told", agent=agent, signal=signal, error=error.message)
