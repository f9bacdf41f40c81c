"""The sections `[agents.…]` of `sevenfold.toml`."""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue, field_validator, model_validator

from contracts.sections import Section, VariableName

_PER_SECOND = {"s": 1.0, "m": 60.0, "h": 3_600.0}


def _rate(said: object) -> object:
    found = re.fullmatch(r"(\d{1,9})/(s|m|h)", said) if isinstance(said, str) else None
    if found is None or not int(found[1]):
        raise ValueError('write it as "100/s", "30/m" or "1000/h"')
    return int(found[1]) / _PER_SECOND[found[2]]


# Calls a second.
Rate = Annotated[float, BeforeValidator(_rate)]


class CircuitConfig(Section):
    """When an agent counts as down: of the calls of the last `window` seconds, `minimum_calls` or more, a share of
    `failure_rate` has failed. It is then left alone for `pause` seconds, and up to `longest_pause` if it stays down.
    """

    enabled: bool = True
    failure_rate: float = Field(default=0.5, gt=0, le=1, allow_inf_nan=False)
    window: float = Field(default=30.0, ge=1, le=3_600, allow_inf_nan=False)
    minimum_calls: int = Field(default=5, ge=1, le=1_000)
    pause: float = Field(default=5.0, ge=0.5, le=3_600, allow_inf_nan=False)
    longest_pause: float = Field(default=60.0, ge=0.5, le=3_600, allow_inf_nan=False)

    @model_validator(mode="after")
    def _pauses_grow(self) -> "CircuitConfig":
        if self.longest_pause < self.pause:
            raise ValueError("longest_pause must not be below pause")
        return self


class _AgentSection(Section):
    # Seconds until real durations are measured.
    duration_estimate: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    # Seconds up to which `/hybrid` waits for an answer.
    hybrid_threshold: float = Field(default=5.0, gt=0, le=60, allow_inf_nan=False)

    # Tasks for which the agent takes a job's whole list in one call, instead of an item at a time.
    whole_lists: frozenset[str] = frozenset()

    def takes_whole(self, task: str) -> bool:
        """Whether it takes a job's list whole."""
        return task in self.whole_lists


class _CalledAgentSection(_AgentSection):
    """An agent that our workers call, and so can leave alone."""

    # Calls at once, and calls in a time ("100/s", "30/m", "1000/h"), over all workers together.
    max_concurrency: int | None = Field(default=None, ge=1, le=100_000)
    rate: Rate | None = None

    circuit: CircuitConfig = CircuitConfig()


class PythonAgentConfig(_CalledAgentSection):
    """A callable or an agent object of yours: `target = "package.module:attribute"`."""

    kind: Literal["python"]
    target: str

    @field_validator("target")
    @classmethod
    def _module_and_attribute(cls, target: str) -> str:
        module, colon, attribute = target.partition(":")
        if not (module and colon and attribute):
            raise ValueError('write it as "package.module:attribute"')
        return target


class BuiltinAgentConfig(_CalledAgentSection):
    """The agent that ships: offline, deterministic, modest."""

    kind: Literal["builtin"]
    duration_estimate: float | None = Field(default=0.1, gt=0, allow_inf_nan=False)
    whole_lists: frozenset[str] = frozenset({"analyze_sentiment"})


class SimulatorAgentConfig(_CalledAgentSection):
    """The agent for trying patterns, load and faults. It fails when a request says so, which tells nothing of the
    next one: it has no circuit unless one is wanted.
    """

    kind: Literal["simulator"]
    circuit: CircuitConfig = CircuitConfig(enabled=False)
    duration_estimate: float | None = Field(default=1.0, gt=0, allow_inf_nan=False)


HttpUrl = Annotated[str, Field(pattern=r"^https?://[^\s/?#]+[^\s]*$", max_length=2_048)]


class _ServedAgentConfig(_CalledAgentSection):
    """An agent behind HTTP. `api_key_env` names the variable that holds its bearer token; `silence` is how many
    seconds its server may say nothing before the attempt counts as failed.
    """

    api_key_env: VariableName | None = None
    silence: float = Field(default=300.0, gt=0, le=86_400, allow_inf_nan=False)


class HttpAgentConfig(_ServedAgentConfig):
    """A service of yours: gets the request as JSON, answers with JSON, server-sent events or JSON lines."""

    kind: Literal["http"]
    url: HttpUrl


class OpenAIAgentConfig(_ServedAgentConfig):
    """A model behind any server that has OpenAI's `/chat/completions` under `base_url`.

    `json_schema`: its answers are JSON of that schema; `options` go along with each request (`temperature`, …).
    """

    kind: Literal["openai"]
    base_url: HttpUrl
    model: str = Field(min_length=1)
    system_prompt: str | None = None
    json_schema: dict[str, JsonValue] | None = None
    options: dict[str, JsonValue] = {}


class WorkflowAgentConfig(_AgentSection):
    """A Temporal workflow type, in any language, whose workers poll `task_queue`. It takes a job's list whole: it is
    a workflow, and spreads work by itself. Its limits are those of its workers; while those are away it waits.
    """

    kind: Literal["workflow"]
    workflow: str = Field(min_length=1, max_length=200)
    task_queue: str = Field(min_length=1, max_length=200)

    def takes_whole(self, task: str) -> bool:
        """Always."""
        return True


CalledAgentConfig = (
    PythonAgentConfig | BuiltinAgentConfig | SimulatorAgentConfig | HttpAgentConfig | OpenAIAgentConfig
)
AgentConfig = Annotated[CalledAgentConfig | WorkflowAgentConfig, Field(discriminator="kind")]
