"""Makes the agents that `sevenfold.toml` names."""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

from adapters.agents.builtin import BuiltinAgent
from adapters.agents.callables import as_agent
from adapters.agents.simulator import SimulatorAgent
from contracts.agent import Agent
from contracts.config import AgentConfig, BuiltinAgentConfig, PythonAgentConfig, SimulatorAgentConfig


class AgentLoadError(Exception):
    """One or more agents cannot be loaded: a line each, by name and reason."""


class AgentRegistry:
    """The agents of a worker by name."""

    def __init__(self, agents: Mapping[str, Agent]) -> None:
        self._agents = dict(agents)

    def get(self, name: str) -> Agent | None:
        """The agent of that name, or None."""
        return self._agents.get(name)

    def names(self) -> list[str]:
        """The names, sorted."""
        return sorted(self._agents)


def load_agents(configs: Mapping[str, AgentConfig], base: Path) -> AgentRegistry:
    """Loads every agent. `base` is the directory in which modules of `python` agents are looked for first.

    Raises AgentLoadError that names every agent that cannot be loaded, with the reason: a worker that started
    without one of them would let its runs wait for ever.
    """
    agents: dict[str, Agent] = {}
    failures: list[str] = []
    for name, config in configs.items():
        try:
            agents[name] = _load(config, base)
        except Exception as error:  # whatever a user's module raises while it is imported
            failures.append(f"agent {name}: {_reason(error)}")
    if failures:
        raise AgentLoadError("\n".join(failures))
    return AgentRegistry(agents)


def _load(config: AgentConfig, base: Path) -> Agent:
    match config:
        case PythonAgentConfig():
            return _load_python(config.target, base)
        case BuiltinAgentConfig():
            return BuiltinAgent()
        case SimulatorAgentConfig():
            return SimulatorAgent()


def _load_python(target: str, base: Path) -> Agent:
    module_name, _, attribute = target.partition(":")
    directory = str(base.resolve())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    found: object = importlib.import_module(module_name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise AgentLoadError(f"{target}: {module_name} has no {attribute}")
        found = getattr(found, part)
    return as_agent(found)


def _reason(error: Exception) -> str:
    if isinstance(error, AgentLoadError | TypeError):
        return str(error)
    return f"{type(error).__name__}: {error}"
