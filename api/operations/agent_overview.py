"""Shows the configured agents: their circuit breakers, limits and recent runs."""

from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import Field
from temporalio.client import Client, WorkflowExecution

from sevenfold.adapters.agents.admission.circuit_breakers import CircuitBreakers
from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.adapters.temporal.durations import completed_seconds, quantile
from sevenfold.adapters.temporal.shared_answers import SharedAnswers
from sevenfold.api.http.listing import tenant_condition
from sevenfold.api.runs.agents import AgentCatalog
from sevenfold.contracts.agents.circuits import BreakerState, OpenCircuit
from sevenfold.contracts.agents.config import AgentConfig, AgentKind, WorkflowAgentConfig
from sevenfold.contracts.payload import Payload

# The latest ended runs: enough for a p95.
_RECENT_RUNS = 100


class Circuit(Payload):
    """`closed`: calls pass. `open`: the agent's latest calls failed, so no call is made. `half-open`: one probe call
    decides whether the circuit closes. `retryAfter`: seconds until the probe.
    """

    state: BreakerState
    since: datetime | None = None
    retry_after: float | None = None


class Recent(Payload):
    """The latest ended runs, 100 at most. Durations are those of completed runs, in seconds."""

    runs: int
    p50: float | None
    p95: float | None
    error_rate: float | None = Field(description="Failed runs among those that completed or failed.")


class AgentView(Payload):
    """An agent of `sevenfold.toml`. Circuit and limits apply to all tenants; the runs are the tenant's own."""

    name: str
    kind: AgentKind
    is_default: bool
    circuit: Circuit | None = Field(description="Null for an agent without a circuit breaker.")
    max_concurrency: int | None
    rate: float | None = Field(description="Calls per second.")
    in_flight: int = Field(description="Open runs.")
    recent: Recent


class Agents(Payload):
    """All of them, by name."""

    items: list[AgentView]


@dataclass(frozen=True)
class AgentOverview:
    """Reads the agents. Concurrent requests share one search of visibility."""

    client: Client
    agents: AgentCatalog
    circuit_breakers: CircuitBreakers
    shared: SharedAnswers

    async def list_agents(self, tenant: str | None) -> list[AgentView]:
        """Returns the agents that the tenant may use, by name; None: all, with the runs of all tenants."""

        async def load(name: str) -> AgentView:
            return await self._load_agent(tenant, name, self.agents.configs[name])

        return await gather_bounded(load, self.agents.list_names(tenant))

    async def _load_agent(self, tenant: str | None, name: str, config: AgentConfig) -> AgentView:
        in_flight, recent = await self.shared.get(("agent", tenant, name), lambda: self._load_runs(tenant, name))
        called = None if isinstance(config, WorkflowAgentConfig) else config
        return AgentView(
            name=name,
            kind=config.kind,
            is_default=name == self.agents.default,
            circuit=await self._load_circuit(name, config),
            max_concurrency=called.max_concurrency if called else None,
            rate=called.rate if called else None,
            in_flight=in_flight,
            recent=recent,
        )

    async def _load_runs(self, tenant: str | None, name: str) -> tuple[int, Recent]:
        """Returns the number of open runs, and figures of the latest ended ones."""
        of_agent = " AND ".join([*tenant_condition(tenant), f"Agent = '{name}'"])
        running = await self.client.count_workflows(f"{of_agent} AND ExecutionStatus = 'Running'")
        has_ended = f"{of_agent} AND ExecutionStatus IN ('Completed', 'Failed', 'TimedOut')"
        ended = self.client.list_workflows(has_ended, page_size=_RECENT_RUNS, limit=_RECENT_RUNS)
        return running.count, _summarize_recent([one async for one in ended])

    async def _load_circuit(self, name: str, config: AgentConfig) -> Circuit | None:
        if isinstance(config, WorkflowAgentConfig) or not config.circuit.enabled:
            return None
        state: OpenCircuit | None = await self.circuit_breakers.get_state(name)
        if state is None:
            return Circuit(state=BreakerState.CLOSED)
        now = datetime.now(UTC)
        remaining = max(0.0, (state.probe_after - now).total_seconds())
        return Circuit(state=state.state_at(now), since=state.opened_at, retry_after=round(remaining, 1))


def _summarize_recent(ended: list[WorkflowExecution]) -> Recent:
    seconds = completed_seconds(ended)
    return Recent(
        runs=len(ended),
        p50=quantile(seconds, 0.5),
        p95=quantile(seconds, 0.95),
        error_rate=1 - len(seconds) / len(ended) if ended else None,
    )
