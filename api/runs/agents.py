"""The configured agents, as requests name them."""

from collections.abc import Mapping
from dataclasses import dataclass

from sevenfold.api.http.problems import invalid_field
from sevenfold.contracts.agent import WorkflowTarget
from sevenfold.contracts.agent_config import AgentConfig


@dataclass(frozen=True)
class AgentCatalog:
    """The agents of `sevenfold.toml`. `workflow_targets` are those that are workflows themselves."""

    configs: Mapping[str, AgentConfig]
    workflow_targets: Mapping[str, WorkflowTarget]
    default: str

    def resolve(self, name: str | None) -> str:
        """Returns the agent's name, or the default agent's if the request names none. Raises 422 if it does not
        exist.
        """
        if name is None:
            return self.default
        if name not in self.configs:
            raise invalid_field("/agent", f"there is no agent {name}; there are: {', '.join(sorted(self.configs))}")
        return name
