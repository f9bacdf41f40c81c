"""The schema of `sevenfold.toml`."""

from collections import Counter
from collections.abc import Iterator

from pydantic import model_validator

from sevenfold.contracts.access.principals import TenantName
from sevenfold.contracts.access.quotas import QuotaFields
from sevenfold.contracts.agents.config import (
    AgentConfig,
    CircuitConfig,
    DirectAgentConfig,
    Price,
    PythonAgentConfig,
    SimulatorAgentConfig,
    WorkflowAgentConfig,
)
from sevenfold.contracts.agents.interface import AgentName, WorkflowTarget
from sevenfold.contracts.config.access import AuthConfig, TenantConfig
from sevenfold.contracts.config.brokers import BrokerConfig
from sevenfold.contracts.events.sns import SnsTopicConfig
from sevenfold.contracts.events.subscriptions import SubscriptionConfig
from sevenfold.contracts.identity import DEFAULT_TENANT
from sevenfold.contracts.sections import ConfigSection
from sevenfold.contracts.spelling import suggest


class InteractionsConfig(ConfigSection):
    """Whether the end of every run is published as an event: `interaction.completed`, `.failed`, `.cancelled`."""

    enabled: bool = False
    """publish the end of every run as an event: `interaction.completed`, `.failed`, `.cancelled`"""


class MetricsConfig(ConfigSection):
    """What metrics may show by name: each name is a time series more. Other tasks are `other`."""

    tasks: frozenset[str] = frozenset()
    """tasks that metrics show by name; the others are `other`"""
    tenants: bool = False
    """show tenants by name"""


class SevenfoldConfig(ConfigSection):
    """The whole file. Without a file, `builtin` is the only agent."""

    default_agent: str = "builtin"
    """agent of requests that name none"""
    agents: dict[AgentName, AgentConfig] = {}
    """one table per [agent](#agentsname); `builtin` is always there"""
    subscriptions: list[SubscriptionConfig] = []
    """list of [tables](#subscriptions)"""
    brokers: dict[AgentName, BrokerConfig] = {}
    """one table per [broker](#brokersname)"""
    sns: list[SnsTopicConfig] = []
    """list of [topics](#sns) that may send events over HTTP"""
    interactions: InteractionsConfig = InteractionsConfig()
    """[whether](#interactions) runs publish events"""
    tenants: dict[TenantName, TenantConfig] = {}
    """one table per [tenant](#tenantsname), with its keys"""
    auth: AuthConfig = AuthConfig()
    """a table with [`oidc`](#authoidc): access tokens of an issuer"""
    metrics: MetricsConfig = MetricsConfig()
    """[what](#metrics) metrics show by name"""

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
            hint = suggest(self.default_agent, self.agents)
            raise ValueError(
                f'default_agent = "{self.default_agent}" is not a configured agent{hint}; configured: {known}'
            )
        return self

    @model_validator(mode="after")
    def _check_started_agents(self) -> "SevenfoldConfig":
        for name, broker in self.brokers.items():
            for one in broker.consume:
                agent = one.start.agent if one.start is not None else None
                if agent is not None and agent not in self.agents:
                    hint = suggest(agent, self.agents)
                    raise ValueError(f"broker {name}, from {one.source}: there is no agent {agent}{hint}")
                called = self.agents[agent or self.default_agent]
                if one.start is not None and one.start.max_cost is not None and called.price is None:
                    raise ValueError(f"broker {name}, from {one.source}: max_cost needs an agent with a price")
        return self

    @model_validator(mode="after")
    def _check_subscriptions(self) -> "SevenfoldConfig":
        names = Counter((subscription.tenant, subscription.name) for subscription in self.subscriptions)
        for (tenant, name), count in names.items():
            if count > 1:
                raise ValueError(f"{count} subscriptions of the tenant {tenant} are named {name}")
        for subscription in self.subscriptions:
            agent = subscription.agent or self.default_agent
            if agent not in self.agents and agent != "simulator":
                known = ", ".join(sorted(self.agents))
                raise ValueError(
                    f"subscription {subscription.name}: agent {agent} is not configured"
                    f"{suggest(agent, self.agents)}; configured: {known}"
                )
        return self

    @model_validator(mode="after")
    def _check_key_ids(self) -> "SevenfoldConfig":
        owners: dict[str, str] = {}
        for tenant, config in self.tenants.items():
            for key in config.keys:
                if key.id in owners:
                    raise ValueError(f"the key id {key.id} is used twice, by {owners[key.id]} and {tenant}")
                owners[key.id] = tenant
        return self

    @model_validator(mode="after")
    def _check_tenants(self) -> "SevenfoldConfig":
        for tenant, config in self.tenants.items():
            for agent in config.agents or []:
                if agent not in self.agents and agent != "simulator":
                    known = ", ".join(sorted(self.agents))
                    hint = suggest(agent, self.agents)
                    raise ValueError(f"tenants.{tenant}: agent {agent} is not configured{hint}; configured: {known}")
            owners: list[QuotaFields] = [config, *config.keys]
            if not self.prices and any(owner.has_usd_budget for owner in owners):
                raise ValueError(
                    f"tenants.{tenant}: a budget in usd needs the price of an agent: "
                    "price = {input = 2.5, output = 10} in its section, in dollars for a million tokens"
                )
        for where, tenant in self._named_tenants():
            if tenant not in self.tenants and tenant != DEFAULT_TENANT:
                raise ValueError(f"{where}: tenant {tenant} is not configured; add a section [tenants.{tenant}]")
        for subscription in self.subscriptions:
            agent = subscription.agent or self.default_agent
            if not self._may_use(subscription.tenant, agent):
                where = f"subscription {subscription.name}"
                raise ValueError(f"{where}: the tenant {subscription.tenant} may not use the agent {agent}")
        return self

    def _named_tenants(self) -> Iterator[tuple[str, str]]:
        """Yields where a tenant is named, and the tenant."""
        for subscription in self.subscriptions:
            yield f"subscription {subscription.name}", subscription.tenant
        for topic in self.sns:
            yield f"sns, topic {topic.topic}", topic.tenant
        for name, broker in self.brokers.items():
            for consumer in broker.consume:
                yield f"brokers.{name}, consume from {consumer.source}", consumer.tenant
            for route in broker.publish:
                yield from ((f"brokers.{name}, publish to {route.to}", tenant) for tenant in sorted(route.tenants))

    def _may_use(self, tenant: str, agent: str) -> bool:
        allowed = self.tenants[tenant].agents if tenant in self.tenants else None
        return allowed is None or agent in allowed

    @property
    def has_credentials(self) -> bool:
        """Whether requests need a key or a token, by this file."""
        return self.auth.oidc is not None or any(tenant.keys for tenant in self.tenants.values())

    @property
    def direct_agents(self) -> dict[str, DirectAgentConfig]:
        """The agents that our workers call; the others are workflows."""
        return {name: one for name, one in self.agents.items() if not isinstance(one, WorkflowAgentConfig)}

    @property
    def circuit_configs(self) -> dict[str, CircuitConfig]:
        """Circuit breaker configuration by agent."""
        return {name: one.circuit for name, one in self.direct_agents.items()}

    @property
    def prices(self) -> dict[str, Price]:
        """The prices of agents that have one."""
        return {name: one.price for name, one in self.agents.items() if one.price is not None}

    @property
    def workflow_targets(self) -> dict[str, WorkflowTarget]:
        """The agents of the kind `workflow`."""
        return {
            name: WorkflowTarget(workflow=one.workflow, task_queue=one.task_queue, codec=one.codec)
            for name, one in self.agents.items()
            if isinstance(one, WorkflowAgentConfig)
        }

    @property
    def duration_estimates(self) -> dict[str, float]:
        """The configured duration of a run by agent, in seconds; agents without one are left out."""
        return {name: one.duration_estimate for name, one in self.agents.items() if one.duration_estimate}

    def with_simulator(self) -> "SevenfoldConfig":
        """Returns the configuration with the simulator added, as `sevenfold dev` runs it."""
        return self.model_copy(
            update={"agents": {"simulator": SimulatorAgentConfig(kind="simulator"), **self.agents}}
        )

    def with_python_agent(self, target: str) -> "SevenfoldConfig":
        """Returns the configuration with an agent of this target, named after its module, as the default. Raises
        ValidationError.
        """
        agent = PythonAgentConfig(kind="python", target=target)
        name = target.partition(":")[0].rpartition(".")[2]
        return self.model_copy(update={"default_agent": name, "agents": {**self.agents, name: agent}})
