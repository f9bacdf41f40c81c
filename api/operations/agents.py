"""The agents, and how they are: `GET /agents`."""

from datetime import UTC, datetime
from typing import Literal

from fastapi import APIRouter
from pydantic import Field
from temporalio.client import WorkflowExecution

from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.adapters.temporal.durations import completed_seconds, quantile
from sevenfold.api.dependencies import API_PREFIX, Gateway, GatewayDep, TenantDep
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.contracts.agent_config import AgentConfig, WorkflowAgentConfig
from sevenfold.contracts.circuits import BreakerState, OpenCircuit
from sevenfold.contracts.payload import Payload

router = APIRouter(prefix=API_PREFIX, tags=["agents"], route_class=StrictJsonRoute)

# The latest runs that have ended: enough for a p95.
_RECENT_RUNS = 100


class Circuit(Payload):
    """`open`: the agent fails, and nobody calls it. `half-open`: one call is made, to see how it is. `retryAfter`:
    seconds until that.
    """

    state: BreakerState
    since: datetime | None = None
    retry_after: float | None = None


class Recent(Payload):
    """The latest runs that have ended, 100 at most. Durations are of completed ones, in seconds."""

    runs: int
    p50: float | None
    p95: float | None
    error_rate: float | None = Field(description="Failed runs among those that completed or failed.")


class AgentView(Payload):
    """An agent of `sevenfold.toml`. Its circuit and its limits are those of all tenants, its runs your own."""

    name: str
    kind: Literal["python", "builtin", "simulator", "http", "openai", "workflow"]
    is_default: bool
    circuit: Circuit | None = Field(description="Null for an agent that has none.")
    max_concurrency: int | None
    rate: float | None = Field(description="Calls a second.")
    in_flight: int = Field(description="Runs that have not ended.")
    recent: Recent


class Agents(Payload):
    """All of them, by name."""

    items: list[AgentView]


@router.get("/agents", operation_id="listAgents", summary="See the agents, and how they are", responses=PROBLEMS)
async def agents(gateway: GatewayDep, tenant: TenantDep) -> Agents:
    """What is configured, which circuits are open, and how the latest runs went (up to a second late)."""

    async def viewed(name: str) -> AgentView:
        return await _load_view(gateway, tenant, name, gateway.agents[name])

    return Agents(items=await gather_bounded(viewed, sorted(gateway.agents)))


async def _load_view(gateway: Gateway, tenant: str, name: str, config: AgentConfig) -> AgentView:
    in_flight, recent = await gateway.statistics.get(("agent", tenant, name), lambda: _runs(gateway, tenant, name))
    called = None if isinstance(config, WorkflowAgentConfig) else config
    return AgentView(
        name=name,
        kind=config.kind,
        is_default=name == gateway.default_agent,
        circuit=await _load_circuit(gateway, name, config),
        max_concurrency=called.max_concurrency if called else None,
        rate=called.rate if called else None,
        in_flight=in_flight,
        recent=recent,
    )


async def _runs(gateway: Gateway, tenant: str, name: str) -> tuple[int, Recent]:
    """How many runs have not ended, and how the latest ended."""
    mine = f"Tenant = '{tenant}' AND Agent = '{name}'"
    running = await gateway.client.count_workflows(f"{mine} AND ExecutionStatus = 'Running'")
    over = f"{mine} AND ExecutionStatus IN ('Completed', 'Failed', 'TimedOut')"
    ended = gateway.client.list_workflows(over, page_size=_RECENT_RUNS, limit=_RECENT_RUNS)
    return running.count, _summarize_recent([one async for one in ended])


async def _load_circuit(gateway: Gateway, name: str, config: AgentConfig) -> Circuit | None:
    if isinstance(config, WorkflowAgentConfig) or not config.circuit.enabled:
        return None
    state: OpenCircuit | None = await gateway.circuit_breakers.get_state(name)
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
