"""The sections `[agents.…]` of `sevenfold.toml`."""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue, field_validator, model_validator

from sevenfold.contracts.sections import ConfigSection, VariableName

_UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3_600.0}


def _parse_rate(value: object) -> object:
    found = re.fullmatch(r"(\d{1,9})/(s|m|h)", value) if isinstance(value, str) else None
    if found is None or not int(found[1]):
        raise ValueError('write it as "100/s", "30/m" or "1000/h"')
    return int(found[1]) / _UNIT_SECONDS[found[2]]


# Calls a second.
Rate = Annotated[float, BeforeValidator(_parse_rate)]


class CircuitConfig(ConfigSection):
    """When an agent counts as down: of the calls of the last `window_seconds` seconds, `minimum_calls` or more, a
    share of `failure_rate` has failed. It is then left alone for `open_seconds` seconds, and up to `max_open_seconds`
    if it stays down.
    """

    enabled: bool = True
    failure_rate: float = Field(default=0.5, gt=0, le=1, allow_inf_nan=False)
    window_seconds: float = Field(default=30.0, ge=1, le=3_600, allow_inf_nan=False)
    minimum_calls: int = Field(default=5, ge=1, le=1_000)
    open_seconds: float = Field(default=5.0, ge=0.5, le=3_600, allow_inf_nan=False)
    max_open_seconds: float = Field(default=60.0, ge=0.5, le=3_600, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check_durations(self) -> "CircuitConfig":
        if self.max_open_seconds < self.open_seconds:
            raise ValueError("max_open_seconds must not be below open_seconds")
        return self


class _AgentBase(ConfigSection):
    # Seconds until real durations are measured.
    duration_estimate: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    # Seconds up to which `/hybrid` waits for an answer.
    hybrid_threshold: float = Field(default=5.0, gt=0, le=60, allow_inf_nan=False)

    # Tasks for which the agent takes a job's whole list in one call, instead of an item at a time.
    batch_tasks: frozenset[str] = frozenset()

    def takes_batches(self, task: str) -> bool:
        """Whether it takes a job's list whole."""
        return task in self.batch_tasks


class _DirectAgentBase(_AgentBase):
    """An agent that our workers call, and so can leave alone."""

    # Calls at once, and calls in a time ("100/s", "30/m", "1000/h"), over all workers together.
    max_concurrency: int | None = Field(default=None, ge=1, le=100_000)
    rate: Rate | None = None

    circuit: CircuitConfig = CircuitConfig()


class PythonAgentConfig(_DirectAgentBase):
    """A callable or an agent object of yours: `target = "package.module:attribute"`."""

    kind: Literal["python"]
    target: str

    @field_validator("target")
    @classmethod
    def _check_target(cls, target: str) -> str:
        module, colon, attribute = target.partition(":")
        if not (module and colon and attribute):
            raise ValueError('write it as "package.module:attribute"')
        return target


class BuiltinAgentConfig(_DirectAgentBase):
    """The agent that ships: offline, deterministic, modest."""

    kind: Literal["builtin"]
    duration_estimate: float | None = Field(default=0.1, gt=0, allow_inf_nan=False)
    batch_tasks: frozenset[str] = frozenset({"analyze_sentiment"})


class SimulatorAgentConfig(_DirectAgentBase):
    """The agent for trying patterns, load and faults. It fails when a request says so, which tells nothing of the
    next one: it has no circuit unless one is wanted.
    """

    kind: Literal["simulator"]
    circuit: CircuitConfig = CircuitConfig(enabled=False)
    duration_estimate: float | None = Field(default=1.0, gt=0, allow_inf_nan=False)


HttpUrl = Annotated[str, Field(pattern=r"^https?://[^\s/?#]+[^\s]*$", max_length=2_048)]


class _RemoteAgentBase(_DirectAgentBase):
    """An agent behind HTTP. `api_key_env` names the variable that holds its bearer token; `idle_timeout_seconds` is
    how many seconds its server may say nothing before the attempt counts as failed.
    """

    api_key_env: VariableName | None = None
    idle_timeout_seconds: float = Field(default=300.0, gt=0, le=86_400, allow_inf_nan=False)


class HttpAgentConfig(_RemoteAgentBase):
    """A service of yours: gets the request as JSON, answers with JSON, server-sent events or JSON lines."""

    kind: Literal["http"]
    url: HttpUrl


class OpenAIAgentConfig(_RemoteAgentBase):
    """A model behind any server that has OpenAI's `/chat/completions` under `base_url`.

    `json_schema`: its answers are JSON of that schema; `options` go along with each request (`temperature`, …).
    """

    kind: Literal["openai"]
    base_url: HttpUrl
    model: str = Field(min_length=1)
    system_prompt: str | None = None
    json_schema: dict[str, JsonValue] | None = None
    options: dict[str, JsonValue] = {}


class WorkflowAgentConfig(_AgentBase):
    """A Temporal workflow type, in any language, whose workers poll `task_queue`. It takes a job's list whole: it is
    a workflow, and spreads work by itself. Its limits are those of its workers; while those are away it waits.
    """

    kind: Literal["workflow"]
    workflow: str = Field(min_length=1, max_length=200)
    task_queue: str = Field(min_length=1, max_length=200)

    def takes_batches(self, task: str) -> bool:
        """Always."""
        return True


DirectAgentConfig = (
    PythonAgentConfig | BuiltinAgentConfig | SimulatorAgentConfig | HttpAgentConfig | OpenAIAgentConfig
)
AgentConfig = Annotated[DirectAgentConfig | WorkflowAgentConfig, Field(discriminator="kind")]
