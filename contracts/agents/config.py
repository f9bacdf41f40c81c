"""The sections `[agents.…]` of `sevenfold.toml`."""

import math
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue, WithJsonSchema, field_validator, model_validator

from sevenfold.contracts.sections import ConfigSection, VariableName

MICRO_USD = 1_000_000

_UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3_600.0}


def _parse_rate(value: object) -> object:
    found = re.fullmatch(r"([0-9]{1,9})/(s|m|h)", value) if isinstance(value, str) else None
    if found is None or not int(found[1]):
        raise ValueError('write it as "100/s", "30/m" or "1000/h"')
    return int(found[1]) / _UNIT_SECONDS[found[2]]


# Per second; written as a text.
Rate = Annotated[
    float,
    BeforeValidator(_parse_rate),
    WithJsonSchema({"type": "string", "pattern": "^0{0,8}[1-9][0-9]{0,8}/(s|m|h)$", "examples": ["100/s"]}),
]


def format_rate(rate: float) -> str:
    """Returns a rate per second as it is written: `100/s`, `30/m`, `1000/h`."""
    for unit, seconds in _UNIT_SECONDS.items():
        count = round(rate * seconds)
        if count and math.isclose(count, rate * seconds, rel_tol=1e-9):
            return f"{count}/{unit}"
    return f"{rate:g}/s"


class CircuitConfig(ConfigSection):
    """Circuit breaker of an agent. It opens when the share of failed calls reaches `failure_rate`, among at least
    `minimum_calls` calls of the last `window_seconds` seconds. It stays open for `open_seconds` seconds; each failed
    probe doubles that, up to `max_open_seconds`.
    """

    enabled: bool = True
    """whether there is a circuit breaker; `simulator` has none"""
    failure_rate: float = Field(default=0.5, gt=0, le=1, allow_inf_nan=False)
    """share of failed calls that opens it, above 0 to 1"""
    window_seconds: float = Field(default=30.0, ge=1, le=3_600, allow_inf_nan=False)
    """seconds of calls that count, 1 to 3,600"""
    minimum_calls: int = Field(default=5, ge=1, le=1_000)
    """calls needed within the window, 1 to 1,000"""
    open_seconds: float = Field(default=5.0, ge=0.5, le=3_600, allow_inf_nan=False)
    """seconds before the first probe, 0.5 to 3,600"""
    max_open_seconds: float = Field(default=60.0, ge=0.5, le=3_600, allow_inf_nan=False)
    """seconds that the pause grows to, 0.5 to 3,600, not below `open_seconds`"""

    @model_validator(mode="after")
    def _check_durations(self) -> "CircuitConfig":
        if self.max_open_seconds < self.open_seconds:
            raise ValueError("max_open_seconds must not be below open_seconds")
        return self


class Price(ConfigSection):
    """US dollars: for a million tokens of input, of output, and for a call."""

    input: float = Field(default=0.0, ge=0, le=1e6, allow_inf_nan=False, strict=True)
    """US dollars for a million tokens of input"""
    output: float = Field(default=0.0, ge=0, le=1e6, allow_inf_nan=False, strict=True)
    """US dollars for a million tokens of output"""
    call: float = Field(default=0.0, ge=0, le=1e6, allow_inf_nan=False, strict=True)
    """US dollars for a call"""

    def micro_usd(self, input_tokens: int, output_tokens: int, *, calls: int = 1) -> int:
        """Returns the cost of calls in millionths of a dollar, rounded up."""
        # A dollar for a million tokens is a millionth for one.
        cost = self.input * input_tokens + self.output * output_tokens + MICRO_USD * self.call * calls
        return math.ceil(round(cost, 6))


class _AgentBase(ConfigSection):
    price: Price | None = None
    """what its answers cost, a [table](#price); budgets and `maxCost` in dollars need it"""

    duration_estimate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """seconds that a run takes, until durations are measured"""

    hybrid_threshold: float = Field(default=5.0, gt=0, le=60, allow_inf_nan=False)
    """seconds up to which `/hybrid` waits for an answer, at most 60"""

    batch_tasks: frozenset[str] = frozenset()
    """tasks whose lists the agent takes in one call; a `workflow` agent takes all of them"""

    def takes_batches(self, task: str) -> bool:
        """Whether the agent takes a job's whole list in one call."""
        return task in self.batch_tasks


class _DirectAgentBase(_AgentBase):
    """An agent that our workers call, so that a circuit breaker and limits apply."""

    max_concurrency: int | None = Field(default=None, ge=1, le=100_000)
    """calls at once over all workers, 1 to 100,000"""
    rate: Rate | None = None
    """calls per time over all workers: `"100/s"`, `"30/m"`, `"1000/h"`"""

    circuit: CircuitConfig = CircuitConfig()
    """[circuit breaker](#circuit)"""


_OF_PROCESSES = frozenset(
    {"python", "working_directory", "env", "memory_mb", "max_calls", "max_age", "idle_processes"}
)


class PythonAgentConfig(_DirectAgentBase):
    """Your own callable or agent object: `target = "package.module:attribute"`.

    With `isolation = "process"` it runs in child processes of the worker, one call at a time in each, under `python`
    (the worker's own by default) in `working_directory` (relative to the file), with `env` added to the environment.
    A child may allocate `memory_mb` and is replaced after `max_calls` calls or `max_age` seconds; `idle_processes`
    wait for the next call.
    """

    kind: Literal["python"]
    target: str
    """`"package.module:attribute"`: a function, a generator, a class with `run`, or an agent of a framework"""
    isolation: Literal["none", "process"] = "none"
    """`process`: it runs in [child processes](agents.md#isolation)"""
    python: str | None = Field(default=None, min_length=1, max_length=4_096)
    """the Python that runs it, relative to the file; unset: the worker's"""
    working_directory: Path = Path()
    """where it runs, relative to the file"""
    env: dict[VariableName, str] = {}
    """variables added to its environment"""
    memory_mb: int | None = Field(default=None, ge=32, le=1_000_000)
    """what a process may allocate, in MB, from 32"""
    max_calls: int = Field(default=1_000, ge=1, le=1_000_000)
    """calls after which a process is replaced"""
    max_age: float = Field(default=3_600.0, gt=0, le=604_800, allow_inf_nan=False)
    """seconds after which a process is replaced"""
    idle_processes: int = Field(default=4, ge=0, le=1_000)
    """how many processes wait for the next call"""

    @field_validator("target")
    @classmethod
    def _check_target(cls, target: str) -> str:
        module, colon, attribute = target.partition(":")
        if not (module and colon and attribute):
            raise ValueError('write it as "package.module:attribute"')
        return target

    @model_validator(mode="after")
    def _check_isolation(self) -> "PythonAgentConfig":
        given = self.model_fields_set & _OF_PROCESSES
        if self.isolation == "none" and given:
            raise ValueError(f'{", ".join(sorted(given))} belongs to isolation = "process"')
        return self


class BuiltinAgentConfig(_DirectAgentBase):
    """The agent that comes with Sevenfold: offline and deterministic, not a language model."""

    kind: Literal["builtin"]
    duration_estimate: float | None = Field(default=0.1, gt=0, allow_inf_nan=False)
    batch_tasks: frozenset[str] = frozenset({"analyze_sentiment"})


class SimulatorAgentConfig(_DirectAgentBase):
    """The agent for trying patterns, load and faults. It fails on request, so a failure does not predict the next
    call: its circuit breaker is off by default.
    """

    kind: Literal["simulator"]
    circuit: CircuitConfig = CircuitConfig(enabled=False)
    duration_estimate: float | None = Field(default=1.0, gt=0, allow_inf_nan=False)


class CommandAgentConfig(_DirectAgentBase):
    """A program: `command = ["program", "argument"]`, run without a shell. It gets the request as JSON on standard
    input and answers with JSON, or JSON lines, on standard output. It runs in `working_directory`, relative to the
    file, by default the file's own; `env` is added to our environment, from which our own variables are left out.
    """

    kind: Literal["command"]
    command: list[Annotated[str, Field(max_length=4_096)]] = Field(min_length=1, max_length=100)
    """the program and its arguments"""
    working_directory: Path = Path()
    """where it runs, relative to the file"""
    env: dict[VariableName, str] = {}
    """variables added to its environment"""


HttpUrl = Annotated[str, Field(pattern=r"^https?://[^\s/?#]+[^\s]*$", max_length=2_048)]


class _RemoteAgentBase(_DirectAgentBase):
    """An agent behind HTTP. `api_key_env` names the variable that holds its bearer token. An attempt fails if the
    server sends nothing for `idle_timeout_seconds` seconds.
    """

    api_key_env: VariableName | None = None
    """variable with the bearer token"""
    idle_timeout_seconds: float = Field(default=300.0, gt=0, le=86_400, allow_inf_nan=False)
    """seconds without a byte after which an attempt fails, up to 86,400"""


class HttpAgentConfig(_RemoteAgentBase):
    """Your own HTTP service: gets the request as JSON, answers with JSON, server-sent events or JSON lines."""

    kind: Literal["http"]
    url: HttpUrl
    """address of the service"""


class OpenAIAgentConfig(_RemoteAgentBase):
    """A model behind any server with OpenAI's `/chat/completions` under `base_url`, or with `api = "responses"` its
    `/responses`. A query of that URL stays, such as Azure's `?api-version=…`.

    With `json_schema` the answers are JSON of that schema. `options` (`temperature`, …) are sent with each request.
    """

    kind: Literal["openai"]
    api: Literal["chat", "responses"] = "chat"
    """`chat`: `/chat/completions`; `responses`: `/responses`"""
    base_url: HttpUrl
    """address under which that path is; a query stays, such as Azure's `?api-version=…`"""
    model: str = Field(min_length=1)
    """model name"""
    system_prompt: str | None = None
    """first message"""
    json_schema: dict[str, JsonValue] | None = None
    """answers are JSON of this schema"""
    options: dict[str, JsonValue] = {}
    """sent with each request (`temperature`, …)"""

    @property
    def address(self) -> str:
        """The URL to which requests are posted."""
        base, mark, query = self.base_url.partition("?")
        path = "responses" if self.api == "responses" else "chat/completions"
        return f"{base.rstrip('/')}/{path}{mark}{query}"


class WorkflowAgentConfig(_AgentBase):
    """A Temporal workflow type of any language whose workers poll `task_queue`. It takes a job's whole list, because
    it can fan out itself. Its workers enforce its limits; while no worker polls, the call waits. `codec`: its workers
    have the keys of SEVENFOLD_CODEC_KEYS, so that payloads to them are encrypted.
    """

    kind: Literal["workflow"]
    workflow: str = Field(min_length=1, max_length=200)
    """workflow type"""
    task_queue: str = Field(min_length=1, max_length=200)
    """task queue of its workers"""
    codec: bool = False
    """its workers have the keys of `SEVENFOLD_CODEC_KEYS`, so payloads to and from them are encrypted"""

    def takes_batches(self, task: str) -> bool:
        """Always true."""
        return True


DirectAgentConfig = (
    PythonAgentConfig
    | CommandAgentConfig
    | BuiltinAgentConfig
    | SimulatorAgentConfig
    | HttpAgentConfig
    | OpenAIAgentConfig
)
AgentConfig = Annotated[DirectAgentConfig | WorkflowAgentConfig, Field(discriminator="kind")]
AgentKind = Literal["python", "command", "builtin", "simulator", "http", "openai", "workflow"]
