"""The shape of `sevenfold.toml`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

AgentName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _AgentSection(_Section):
    # Seconds until real durations are measured.
    duration_estimate: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    # Tasks for which the agent takes a job's whole list in one call, instead of an item at a time.
    whole_lists: frozenset[str] = frozenset()


class PythonAgentConfig(_AgentSection):
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


class BuiltinAgentConfig(_AgentSection):
    """The agent that ships: offline, deterministic, modest."""

    kind: Literal["builtin"]
    duration_estimate: float | None = Field(default=0.1, gt=0, allow_inf_nan=False)
    whole_lists: frozenset[str] = frozenset({"analyze_sentiment"})


class SimulatorAgentConfig(_AgentSection):
    """The agent for trying patterns, load and faults."""

    kind: Literal["simulator"]
    duration_estimate: float | None = Field(default=1.0, gt=0, allow_inf_nan=False)


AgentConfig = Annotated[PythonAgentConfig | BuiltinAgentConfig | SimulatorAgentConfig, Field(discriminator="kind")]


class SevenfoldConfig(_Section):
    """The whole file. Without one, the `builtin` agent is all there is."""

    default_agent: str = "builtin"
    agents: dict[AgentName, AgentConfig] = {}

    @model_validator(mode="before")
    @classmethod
    def _builtin_is_always_there(cls, raw: object) -> object:
        if isinstance(raw, dict) and isinstance(raw.get("agents", {}), dict):
            return {**raw, "agents": {"builtin": {"kind": "builtin"}, **raw.get("agents", {})}}
        return raw

    @model_validator(mode="after")
    def _default_exists(self) -> "SevenfoldConfig":
        if self.default_agent not in self.agents:
            known = ", ".join(sorted(self.agents))
            raise ValueError(f'default_agent = "{self.default_agent}" is not among the agents: {known}')
        return self

    def with_simulator(self) -> "SevenfoldConfig":
        """The same with the simulator among the agents: what `sevenfold dev` runs."""
        return self.model_copy(
            update={"agents": {"simulator": SimulatorAgentConfig(kind="simulator"), **self.agents}}
        )
