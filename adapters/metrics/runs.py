"""Metrics of runs, agent calls, items and circuit breakers."""

from prometheus_client import Counter, Gauge, Histogram

from sevenfold.adapters.metrics.labels import DURATION_BUCKETS, LONG_BUCKETS, policy

_STARTED = Counter(
    "sevenfold_runs_started", "Runs that Temporal has accepted.", ["pattern", "agent", "task", "tenant"]
)
_ENDED = Counter(
    "sevenfold_runs_ended",
    "Runs that have ended; `error` is the code of a failed one.",
    ["pattern", "agent", "task", "tenant", "outcome", "error"],
)
_DURATION = Histogram(
    "sevenfold_run_duration_seconds",
    "Time from a run's start to its end.",
    ["pattern", "agent", "outcome"],
    buckets=LONG_BUCKETS,
)
_CALLS = Histogram(
    "sevenfold_agent_call_duration_seconds",
    "Calls of agents, one per attempt and item; `outcome` is ok, cancelled, or the error's code.",
    ["agent", "outcome"],
    buckets=DURATION_BUCKETS,
)
_FIRST_CHUNK = Histogram(
    "sevenfold_agent_first_chunk_seconds",
    "Time from a call's start to its first piece of text, of agents that stream.",
    ["agent"],
    buckets=DURATION_BUCKETS,
)
_TOKENS = Counter("sevenfold_agent_tokens", "Tokens that agents reported.", ["agent", "direction", "tenant"])
_COST = Counter("sevenfold_agent_cost_usd", "What calls cost by the agents' prices.", ["agent", "tenant"])
_RETRIES = Counter(
    "sevenfold_agent_retries", "Attempts that failed and are followed by another one.", ["agent", "error"]
)
_PERMITS = Gauge("sevenfold_agent_permits_in_use", "Calls that run in this process.", ["agent"])
_REFUSALS = Counter(
    "sevenfold_agent_refusals",
    "Calls without a permit: the circuit is open, the agent's limits or the budget are used up.",
    ["agent", "error"],
)
_ITEMS = Counter("sevenfold_job_items", "Items of jobs that have a result.", ["agent", "outcome"])
_CIRCUIT_CHANGES = Counter("sevenfold_circuit_transitions", "Changes of circuit breakers.", ["agent", "to"])


def count_start(pattern: str, agent: str, task: str, tenant: str) -> None:
    """Counts a run that has started."""
    labels = policy()
    _STARTED.labels(pattern, agent, labels.task(task), labels.tenant(tenant)).inc()


def count_end(pattern: str, agent: str, task: str, tenant: str, outcome: str, error: str, seconds: float) -> None:
    """Counts a run that has ended: as completed, failed with this code, or cancelled."""
    labels = policy()
    _ENDED.labels(pattern, agent, labels.task(task), labels.tenant(tenant), outcome, error).inc()
    _DURATION.labels(pattern, agent, outcome).observe(seconds)


def observe_call(agent: str, outcome: str, seconds: float) -> None:
    """Counts a call that has ended."""
    _CALLS.labels(agent, outcome).observe(seconds)


def observe_first_chunk(agent: str, seconds: float) -> None:
    """Counts the first piece of a call's text."""
    _FIRST_CHUNK.labels(agent).observe(seconds)


def count_usage(agent: str, tenant: str, input_tokens: int, output_tokens: int, micro_usd: int) -> None:
    """Counts what agents have used."""
    name = policy().tenant(tenant)
    if input_tokens > 0:
        _TOKENS.labels(agent, "input", name).inc(input_tokens)
    if output_tokens > 0:
        _TOKENS.labels(agent, "output", name).inc(output_tokens)
    if micro_usd > 0:
        _COST.labels(agent, name).inc(micro_usd / 1_000_000)


def count_retry(agent: str, error: str) -> None:
    """Counts an attempt that failed with this code and is followed by another one."""
    _RETRIES.labels(agent, error).inc()


def permits_in_use(agent: str) -> Gauge:
    """Returns the gauge of an agent's calls in this process."""
    return _PERMITS.labels(agent)


def count_refusal(agent: str, error: str) -> None:
    """Counts a call that got no permit."""
    _REFUSALS.labels(agent, error).inc()


def count_item(agent: str, *, failed: bool) -> None:
    """Counts an item that has a result."""
    _ITEMS.labels(agent, "failed" if failed else "completed").inc()


def count_circuit_change(agent: str, state: str) -> None:
    """Counts a change of a circuit breaker that this process made."""
    _CIRCUIT_CHANGES.labels(agent, state).inc()
