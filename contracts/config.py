"""The shape of `sevenfold.toml`."""

from typing import Literal

from pydantic import Field, model_validator

from sevenfold.contracts.agent import AgentName, WorkflowTarget
from sevenfold.contracts.agent_config import (
    AgentConfig,
    CircuitConfig,
    DirectAgentConfig,
    SimulatorAgentConfig,
    WorkflowAgentConfig,
)
from sevenfold.contracts.event_filters import EventFilter
from sevenfold.contracts.sections import ConfigSection, VariableName
from sevenfold.contracts.subscriptions import SubscriptionConfig


class ConsumeConfig(ConfigSection):
    """Where a broker's events come from: a RabbitMQ queue, a NATS subject, a Redis stream, a Kafka topic. `group`
    names those who share them; `concurrency` is how many are under way at once.
    """

    source: str = Field(alias="from", min_length=1, max_length=200)
    group: str = Field(default="sevenfold", pattern=r"^[A-Za-z0-9_-]{1,100}$")
    concurrency: int = Field(default=20, ge=1, le=1_000)


class PublishConfig(ConfigSection):
    """Which events go out, and to where: a RabbitMQ routing key (or exchange/key), a NATS subject, a Redis stream, a
    Kafka topic.
    """

    filter: EventFilter
    to: str = Field(min_length=1, max_length=200)


class BrokerConfig(ConfigSection):
    """A broker outside. Its address may hold a password, and then belongs into the variable that `url_env` names."""

    kind: Literal["rabbitmq", "nats", "redis", "kafka"]
    url: str | None = Field(default=None, min_length=1)
    url_env: VariableName | None = None
    consume: list[ConsumeConfig] = []
    publish: list[PublishConfig] = []

    @model_validator(mode="after")
    def _check_address(self) -> "BrokerConfig":
        if (self.url is None) == (self.url_env is None):
            raise ValueError("takes either url or url_env")
        return self


class InteractionsConfig(ConfigSection):
    """Whether the end of every run is published as an event: `interaction.completed`, `.failed`, `.cancelled`."""

    enabled: bool = False


class SevenfoldConfig(ConfigSection):
    """The whole file. Without one, the `builtin` agent is all there is."""

    default_agent: str = "builtin"
    agents: dict[AgentName, AgentConfig] = {}
    subscriptions: list[SubscriptionConfig] = []
    brokers: dict[AgentName, BrokerConfig] = {}
    interactions: InteractionsConfig = InteractionsConfig()

    @model_validator(mode="before")
    @classmethod
    def _add_builtin_agent(cls, raw: object) -> object:
        if isinstance(raw, dict) and isinstance(raw.get("agents", {}), dict):
            return {**raw, "agents": {"builtin": {"kind": "builtin"}, **raw.get("agents", {})}}
        return raw

    @model_validator(mode="after")
    def _check_default_agent(self) -> "SevenfoldConfig":
        if self.default_agent not in self.agents:
            known = ", ".join(sorted(self.agents))
            raise ValueError(f'default_agent = "{self.default_agent}" is not among the agents: {known}')
        return self

    @model_validator(mode="after")
    def _check_subscriptions(self) -> "SevenfoldConfig":
        names = [subscription.name for subscription in self.subscriptions]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"there are {names.count(name)} subscriptions named {name}")
        for subscription in self.subscriptions:
            agent = subscription.agent or self.default_agent
            if agent not in self.agents and agent != "simulator":
                known = ", ".join(sorted(self.agents))
                raise ValueError(f"subscription {subscription.name}: there is no agent {agent}; there are: {known}")
        return self

    @property
    def direct_agents(self) -> dict[str, DirectAgentConfig]:
        """The agents that our workers call; the others are workflows."""
        return {name: one for name, one in self.agents.items() if not isinstance(one, WorkflowAgentConfig)}

    @property
    def circuit_configs(self) -> dict[str, CircuitConfig]:
        """By agent."""
        return {name: one.circuit for name, one in self.direct_agents.items()}

    @property
    def workflow_targets(self) -> dict[str, WorkflowTarget]:
        """The agents that are workflows."""
        return {
            name: WorkflowTarget(workflow=one.workflow, task_queue=one.task_queue)
            for name, one in self.agents.items()
            if isinstance(one, WorkflowAgentConfig)
        }

    def with_simulator(self) -> "SevenfoldConfig":
        """The same with the simulator among the agents: what `sevenfold dev` runs."""
        return self.model_copy(
            update={"agents": {"simulator": SimulatorAgentConfig(kind="simulator"), **self.agents}}
        )
