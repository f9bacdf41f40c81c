"""What a client permits its run to use: `maxTokens` and `maxCost`."""

from sevenfold.api.http.problems import invalid_field
from sevenfold.contracts.agents.config import AgentConfig
from sevenfold.contracts.runs.requests import StartOptions
from sevenfold.contracts.runs.run import RunLimits, build_limits


def check_limits(options: StartOptions, agent: str, config: AgentConfig) -> RunLimits | None:
    """Returns the limits; None without any. Raises 422 for `maxCost` with an agent that has no price."""
    if options.max_cost is not None and config.price is None:
        raise invalid_field("/maxCost", f"the agent {agent} has no price in sevenfold.toml; use maxTokens")
    return build_limits(options.max_tokens, options.max_cost)
