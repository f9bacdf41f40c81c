"""The agents of a worker."""

from collections.abc import Mapping

import structlog

from sevenfold.adapters.agents.error_boundary import as_agent_error
from sevenfold.adapters.temporal.cancellation import raise_if_cancelled
from sevenfold.contracts.agents.interface import Agent

log = structlog.get_logger(__name__)


class AgentRegistry:
    """Agents by name. Agents of the kind `workflow` are not included: workflows call them directly."""

    def __init__(self, agents: Mapping[str, Agent]) -> None:
        self._agents = dict(agents)

    def get(self, name: str) -> Agent | None:
        """Returns the agent of that name, or None."""
        return self._agents.get(name)

    def names(self) -> list[str]:
        """Returns the names, sorted."""
        return sorted(self._agents)

    async def aclose(self) -> None:
        """Closes the agents' resources."""
        for agent in self._agents.values():
            close = getattr(agent, "aclose", None)
            if close is not None:
                try:
                    await close()
                except BaseException as error:
                    raise_if_cancelled()
                    log.warning("closing an agent failed", error=type(as_agent_error(error)).__name__)
