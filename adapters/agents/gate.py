"""The gate before every call to an agent: its circuit, and its limits."""

import asyncio
import secrets
import socket
import time
from collections.abc import Mapping
from typing import Any

from temporalio.client import Client, WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy

from adapters.agents.circuits import RPC_TIMEOUT, Circuits
from adapters.agents.shares import AgentShare, Ask
from contracts.agent import Reply
from contracts.agent_config import CalledAgentConfig
from contracts.circuits import control_queue
from contracts.limits import Limits, LimitsState, ShareAsk, ShareGrant, limits_of
from contracts.streams import StreamClosedError, StreamLogError
from contracts.verdicts import AgentError, AgentFailed, AgentUnavailable, DeadlineExceeded

# The errors that count against an agent's circuit: it did not answer.
_FAILING = (AgentFailed, AgentUnavailable)


class Gate:
    """One process's gate to all its agents."""

    def __init__(self, circuits: Circuits, shares: Mapping[str, AgentShare]) -> None:
        self._circuits = circuits
        self._shares = shares

    async def open_for(self, agent: str) -> "Passage | None":
        """A passage without any waiting, or None."""
        if not await self._circuits.closed(agent):
            return None
        share = self._shares.get(agent)
        if share is not None and not share.taken_at_once():
            return None
        return Passage(self._circuits, share, agent, None)

    async def passed(self, agent: str, name: str, patience: float | None) -> "Passage":
        """A passage for the call of that name, as soon as the limits have a place for it, within `patience` seconds
        (None: however long it takes).

        Raises CircuitOpen and AgentBusy, which say when to come again.
        """
        await self._circuits.check(agent)
        share = self._shares.get(agent)
        if share is not None:
            await share.taken(patience)
        try:
            probe = await self._circuits.admitted(agent, name)
        except BaseException:
            if share is not None:
                share.unused()
            raise
        return Passage(self._circuits, share, agent, probe)

    async def aclose(self) -> None:
        """Tells what there is still to tell."""
        for share in self._shares.values():
            await share.aclose()
        await self._circuits.aclose()


class Passage:
    """One call that was let through: `over` has to be told of its end."""

    def __init__(self, circuits: Circuits, share: AgentShare | None, agent: str, probe: str | None) -> None:
        self._circuits = circuits
        self._share = share
        self._agent = agent
        self._probe = probe
        self._begun = time.monotonic()

    def over(self, call: "asyncio.Task[Reply]") -> None:
        """Takes the call's outcome into account: only an agent that did not answer is failing."""
        if self._share is not None:
            self._share.released(time.monotonic() - self._begun)
        error = None if call.cancelled() else call.exception()
        if call.cancelled() or _tells_nothing(error):
            self._circuits.left(self._agent, self._probe)
        elif error is None or (isinstance(error, AgentError) and not isinstance(error, _FAILING)):
            self._circuits.succeeded(self._agent, self._probe)
        else:
            self._circuits.failed(self._agent, self._probe)

    def unused(self) -> None:
        """Gives it back: there was no call."""
        if self._share is not None:
            self._share.unused()
        self._circuits.left(self._agent, self._probe)


def _tells_nothing(error: BaseException | None) -> bool:
    """A client may have given too little time; and our own log of streams is not the agent's fault."""
    ours = (StreamLogError, StreamClosedError)
    return isinstance(error, (DeadlineExceeded, *ours)) or isinstance(getattr(error, "__cause__", None), ours)


def gate_for(client: Client, task_queue: str, configs: Mapping[str, CalledAgentConfig], circuits: Circuits) -> Gate:
    """The gate to the agents of the configuration that are called."""
    process = f"{socket.gethostname()}-{secrets.token_hex(4)}"
    shares: dict[str, AgentShare] = {}
    for name, config in configs.items():
        limits = Limits(max_concurrency=config.max_concurrency, rate=config.rate)
        if limits != Limits():
            shares[name] = AgentShare(process, limits, _asking(client, task_queue, name))
    return Gate(circuits, shares)


def _asking(client: Client, task_queue: str, agent: str) -> Ask:
    async def ask(asked: ShareAsk) -> ShareGrant:
        start: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
            "AgentLimits",
            LimitsState(),
            id=limits_of(agent),
            task_queue=control_queue(task_queue),
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary=f"{agent}'s limits",
        )
        grant: ShareGrant = await client.execute_update_with_start_workflow(
            "share", asked, start_workflow_operation=start, result_type=ShareGrant, rpc_timeout=RPC_TIMEOUT
        )
        return grant

    return ask
