"""The configured agents, as requests name them."""

from collections.abc import Mapping
from dataclasses import dataclass

from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.api.http.problems import invalid_field
from sevenfold.contracts.agents.config import AgentConfig
from sevenfold.contracts.agents.interface import WorkflowTarget
from sevenfold.contracts.spelling import suggest


@dataclass(frozen=True)
class AgentCatalog:
    """The agents of `sevenfold.toml`. `workflow_targets` are those that are workflows themselves. A tenant sees only
    those that it may use.
    """

    configs: Mapping[str, AgentConfig]
    workflow_targets: Mapping[str, WorkflowTarget]
    default: str
    access: AccessDirectory

    def list_names(self, tenant: str | None) -> list[str]:
        """Returns the agents that the tenant may use, by name; None: all."""
        allowed = None if tenant is None else self.access.latest.allowed_agents(tenant)
        return sorted(name for name in self.configs if allowed is None or name in allowed)

    def resolve(self, tenant: str, name: str | None) -> str:
        """Returns the agent's name, or the default agent's if the request names none. Raises 422 if it does not
        exist, or if the tenant may not use it.
        """
        names = self.list_names(tenant)
        chosen = self.default if name is None else name
        if chosen not in names:
            there_are = ", ".join(names) or "none"
            detail = "name one of them" if name is None else f"there is no agent {name}{suggest(name, names)}"
            raise invalid_field("/agent", f"{detail}; there are: {there_are}")
        return chosen
