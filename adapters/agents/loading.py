"""Builds the agents of `sevenfold.toml`."""

import importlib
import shutil
import sys
from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path

from sevenfold.adapters.agents.builtin.agent import BuiltinAgent
from sevenfold.adapters.agents.callables import as_agent
from sevenfold.adapters.agents.command_agent import CommandAgent
from sevenfold.adapters.agents.isolated.agent import IsolatedAgent
from sevenfold.adapters.agents.isolated.process import ChildTerms
from sevenfold.adapters.agents.registry import AgentRegistry
from sevenfold.adapters.agents.remote.chat_completions import CHAT_COMPLETIONS
from sevenfold.adapters.agents.remote.http_agent import HttpAgent
from sevenfold.adapters.agents.remote.model_agent import ModelAgent
from sevenfold.adapters.agents.remote.model_request import ModelConfig
from sevenfold.adapters.agents.remote.responses import RESPONSES
from sevenfold.adapters.agents.remote.upstream import Upstream
from sevenfold.adapters.agents.simulator import SimulatorAgent
from sevenfold.contracts.agents.config import (
    BuiltinAgentConfig,
    CommandAgentConfig,
    DirectAgentConfig,
    HttpAgentConfig,
    OpenAIAgentConfig,
    PythonAgentConfig,
    SimulatorAgentConfig,
)
from sevenfold.contracts.agents.interface import Agent
from sevenfold.contracts.agents.model_requests import ON_DISCONNECT_HEADER


class AgentLoadError(Exception):
    """One or more agents cannot be loaded: one line each, with name and reason."""


def load_agents(configs: Mapping[str, DirectAgentConfig], base: Path, environ: Mapping[str, str]) -> AgentRegistry:
    """Loads every agent. `base` is the directory where modules of `python` agents are searched first; `environ` holds
    the API keys.

    Raises AgentLoadError, which names every agent that cannot be loaded with the reason. A worker that started
    without one of them would let its runs wait until their deadlines.
    """
    agents: dict[str, Agent] = {}
    failures: list[str] = []
    for name, config in configs.items():
        try:
            agents[name] = _load(config, base, environ)
        except BaseException as error:  # Whatever a user's module raises on import, including SystemExit.
            failures.append(f"agent {name}: {_reason(error)}")
    if failures:
        raise AgentLoadError("\n".join(failures))
    return AgentRegistry(agents)


def _load(config: DirectAgentConfig, base: Path, environ: Mapping[str, str]) -> Agent:
    match config:
        case HttpAgentConfig():
            return HttpAgent(_build_upstream(config, config.url, environ))
        case OpenAIAgentConfig():
            return _load_model(config, environ)
        case PythonAgentConfig():
            return (
                _load_isolated(config, base) if config.isolation == "process" else _load_python(config.target, base)
            )
        case CommandAgentConfig():
            return _load_command(config, base)
        case BuiltinAgentConfig():
            return BuiltinAgent()
        case SimulatorAgentConfig():
            return SimulatorAgent()


def _load_model(config: OpenAIAgentConfig, environ: Mapping[str, str]) -> Agent:
    model_config = ModelConfig(config.model, config.system_prompt, config.json_schema, config.options)
    # A server that is another Sevenfold: its run ends with the call.
    headers = {ON_DISCONNECT_HEADER: "cancel"}
    upstream = _build_upstream(config, config.address, environ, headers)
    return ModelAgent(upstream, model_config, RESPONSES if config.api == "responses" else CHAT_COMPLETIONS)


def _build_upstream(
    config: HttpAgentConfig | OpenAIAgentConfig,
    url: str,
    environ: Mapping[str, str],
    headers: Mapping[str, str] | None = None,
) -> Upstream:
    key = environ.get(config.api_key_env) if config.api_key_env else None
    if config.api_key_env and not key:
        raise AgentLoadError(f"the variable {config.api_key_env} (api_key_env) is not set")
    if key and not (key.isascii() and key.isprintable()):
        raise AgentLoadError(f"the value of {config.api_key_env} is not a valid key: use printable ASCII characters")
    return Upstream(url, api_key=key, idle_timeout_seconds=config.idle_timeout_seconds, headers=headers)


def _load_isolated(config: PythonAgentConfig, base: Path) -> Agent:
    directory = _find_directory(base, config.working_directory)
    python = sys.executable if config.python is None else _find_program(config.python, base)
    if python is None:
        raise AgentLoadError(f"python: {config.python} is no program that can be run")
    terms = ChildTerms(
        name=config.target,
        target=config.target,
        directory=base.resolve(),
        python=python,
        working_directory=directory,
        environment=config.env,
        memory_mb=config.memory_mb or 0,
    )
    if reason := terms.check():
        raise AgentLoadError(f"{config.target} under {python}: {reason}")
    return IsolatedAgent(terms, idle=config.idle_processes, max_calls=config.max_calls, max_age=config.max_age)


def _find_program(program: str, directory: Path) -> str | None:
    """Returns the path of a program, relative to the directory or found in PATH; None if there is none."""
    return shutil.which(directory / program if "/" in program else program)


def _find_directory(base: Path, path: Path) -> Path:
    directory = (base / path).resolve()
    if not directory.is_dir():
        raise AgentLoadError(f"working_directory: there is no directory {directory}")
    return directory


def _load_command(config: CommandAgentConfig, base: Path) -> Agent:
    directory = _find_directory(base, config.working_directory)
    program, *arguments = config.command
    path = _find_program(program, directory)
    if path is None:
        raise AgentLoadError(f"command: there is no program {program} that can be run")
    return CommandAgent([path, *arguments], directory, config.env)


def _load_python(target: str, base: Path) -> Agent:
    module_name, _, attribute = target.partition(":")
    directory = str(base.resolve())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    _check_origin(module_name.partition(".")[0], directory)
    found: object = importlib.import_module(module_name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise AgentLoadError(f"{target}: module {module_name} has no attribute {attribute}")
        found = getattr(found, part)
    return as_agent(found)


def _check_origin(name: str, directory: str) -> None:
    """Raises AgentLoadError if the directory has a module that Python loads from elsewhere: it keeps one per name."""
    expected = PathFinder.find_spec(name, [directory])
    if expected is None or not expected.has_location:
        return
    spec = importlib.import_module(name).__spec__
    loaded = spec.origin if spec else None
    if loaded is None or Path(loaded).resolve() != Path(str(expected.origin)).resolve():
        raise AgentLoadError(
            f"Python has a module {name} from {loaded or 'elsewhere'} already, so it cannot load {expected.origin}: "
            "one process holds one module of a name. Rename yours, and the target with it, or set "
            'isolation = "process"'
        )


def _reason(error: BaseException) -> str:
    if isinstance(error, ImportError) and error.name:
        return (
            f"{type(error).__name__}: {error}. If {error.name} is in another environment than Sevenfold, set "
            'isolation = "process" and python to that environment\'s'
        )
    if isinstance(error, AgentLoadError | TypeError):
        return str(error)
    return f"{type(error).__name__}: {error}"
