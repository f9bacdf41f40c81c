"""The agents of a worker."""

from collections.abc import Mapping

from contracts.agent import Agent


class AgentRegistry:
    """Agents by name. Those of the kind `workflow` are not among them: workflows call those by themselves."""

    def __init__(self, agents: Mapping[str, Agent]) -> None:
        self._agents = dict(agents)

    def get(self, name: str) -> Agent | None:
        """The agent of that name, or None."""
        return self._agents.get(name)

    def names(self) -> list[str]:
        """The names, sorted."""
        return sorted(self._agents)

    async def aclose(self) -> None:
        """Closes what agents hold open."""
        for agent in self._agents.values():
            close = getattr(agent, "aclose", None)
            if close is not None:
                await close()
