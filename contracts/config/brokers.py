"""The brokers of `sevenfold.toml`."""

from collections import Counter
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from sevenfold.contracts.access.principals import TenantName
from sevenfold.contracts.events.filters import EventFilter
from sevenfold.contracts.identity import DEFAULT_TENANT
from sevenfold.contracts.messages.maps import EventMap, MapValue, MessageFormat
from sevenfold.contracts.runs.message_runs import ReplyConfig, StartConfig
from sevenfold.contracts.sections import ConfigSection, VariableName


class ConsumeConfig(ConfigSection):
    """A source of a broker's events: a RabbitMQ queue, a NATS subject, a Redis stream, a Kafka topic, the name or URL
    of an SQS queue. Consumers of the same `group` share the events (those of a queue always do); `concurrency` limits
    the events in flight. The events are those of `tenant`. `map` makes events of messages that are none; `start`
    makes each message start a run. Its outcome goes to `reply_to`, or to the sender's address; without both, and with
    `reply`, it is an event for the routes. While the queue of what the messages start holds more than `max_backlog`
    tasks, or one older than `max_age` seconds, none is taken. `auto_offset_reset`: where a group of Kafka begins that
    has no committed offset, at the earliest record by default.
    """

    source: str = Field(alias="from", min_length=1, max_length=200)
    """queue, subject, stream or topic; the name or URL of an SQS queue"""
    group: str = Field(default="sevenfold", pattern=r"^[A-Za-z0-9_-]{1,100}$")
    """consumers of the same group share the messages"""
    concurrency: int = Field(default=20, ge=1, le=1_000)
    """messages processed concurrently, 1 to 1,000"""
    tenant: TenantName = DEFAULT_TENANT
    """whose events they are"""
    map: EventMap | None = None
    """makes [events](#map) of messages that are no CloudEvents"""
    start: StartConfig | None = None
    """each message [starts a run](#start)"""
    reply_to: MapValue | None = None
    """where a run's outcome goes; unset: the sender's address"""
    reply: ReplyConfig | None = None
    """[what a reply looks like](#reply); without an address it is an event for the routes"""
    max_backlog: int | None = Field(default=None, ge=1, le=10_000_000)
    """tasks in the queue of what the messages start, above which none is taken"""
    max_age: float | None = Field(default=None, gt=0, le=86_400, allow_inf_nan=False)
    """age of the oldest such task in seconds, above which none is taken"""
    auto_offset_reset: Literal["earliest", "latest"] | None = None
    """of `kafka`: where a group without an offset begins, `earliest` or `latest`; unset: `earliest`"""

    @property
    def key(self) -> tuple[str, str]:
        """What identifies it within its broker."""
        return self.source, self.group

    @model_validator(mode="after")
    def _check_start(self) -> "ConsumeConfig":
        if self.start is not None and self.map is not None:
            raise ValueError("set either map or start: a message becomes an event, or starts a run")
        if self.start is None and (self.reply_to is not None or self.reply is not None):
            raise ValueError("reply_to and reply belong to start: an event has no reply")
        return self


class PublishConfig(ConfigSection):
    """A route to a broker: events of `tenants` that match `filter` go to `to`, which is a RabbitMQ routing key (or
    exchange/key), a NATS subject, a Redis stream, a Kafka topic, an SQS queue or an EventBridge bus.
    """

    filter: EventFilter
    """which events; see [filters](events.md#filters)"""
    to: str = Field(min_length=1, max_length=200)
    """routing key, or exchange/key, subject, stream, topic, queue or bus"""
    format: MessageFormat = MessageFormat.CLOUDEVENTS
    """`cloudevents`: in binary mode; `plain`: the attributes as headers of their own names"""
    tenants: frozenset[TenantName] = Field(default=frozenset({DEFAULT_TENANT}), min_length=1)
    """whose events"""


class SaslConfig(ConfigSection):
    """How to authenticate to Kafka. `password_env`: the variable with the password."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
    """`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`"""
    username: str = Field(min_length=1, max_length=1_000)
    """the account"""
    password_env: VariableName
    """variable with the password"""


class TlsConfig(ConfigSection):
    """TLS to Kafka. `ca_file` replaces the system's certificates. A client certificate has `cert_file` and, unless
    that has the key too, `key_file`. All are PEM.
    """

    ca_file: Path | None = None
    """PEM file that replaces the system's certificates"""
    cert_file: Path | None = None
    """PEM file of a client certificate"""
    key_file: Path | None = None
    """PEM file of its key, unless `cert_file` has it"""

    @model_validator(mode="after")
    def _check_key(self) -> "TlsConfig":
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file belongs to cert_file, which is missing")
        return self


_SECURITY_ELSEWHERE = {
    "rabbitmq": "write amqps://user:password@host in the url",
    "nats": "write tls://user:password@host in the url",
    "redis": "write rediss://user:password@host in the url",
    "sqs": "set AWS's own variables",
    "eventbridge": "set AWS's own variables",
}


class BrokerConfig(ConfigSection):
    """An external broker. If its address contains a password, put it into the variable that `url_env` names. AWS is
    found by AWS's own variables. `tls` and `sasl` are Kafka's: the others have them in their addresses.
    """

    kind: Literal["rabbitmq", "nats", "redis", "kafka", "sqs", "eventbridge"]
    """`rabbitmq`, `nats`, `redis`, `kafka`, `sqs` or `eventbridge`"""
    url: str | None = Field(default=None, min_length=1)
    """address; none for `sqs` and `eventbridge`, which AWS's own variables lead to"""
    url_env: VariableName | None = None
    """instead of `url`: the variable that holds it"""
    tls: TlsConfig | None = None
    """of `kafka`: [TLS](#tls)"""
    sasl: SaslConfig | None = None
    """of `kafka`: [SASL](#sasl)"""
    consume: list[ConsumeConfig] = []
    """list of [sources](#consume)"""
    publish: list[PublishConfig] = []
    """list of [routes](#publish)"""

    @property
    def is_aws(self) -> bool:
        """Whether it is a service of AWS."""
        return self.kind in ("sqs", "eventbridge")

    @model_validator(mode="after")
    def _check_address(self) -> "BrokerConfig":
        if self.is_aws and (self.url or self.url_env):
            raise ValueError(f"{self.kind} has no url: set AWS_REGION and AWS's other variables")
        if not self.is_aws and (self.url is None) == (self.url_env is None):
            raise ValueError("set either url or url_env")
        return self

    @model_validator(mode="after")
    def _check_kafka(self) -> "BrokerConfig":
        if self.kind == "kafka":
            return self
        if self.tls is not None or self.sasl is not None:
            raise ValueError(f"tls and sasl are settings of Kafka: for {self.kind}, {_SECURITY_ELSEWHERE[self.kind]}")
        if any(one.auto_offset_reset is not None for one in self.consume):
            raise ValueError(f"auto_offset_reset is a setting of Kafka, and not of {self.kind}")
        return self

    @model_validator(mode="after")
    def _check_sources(self) -> "BrokerConfig":
        for (source, group), count in Counter(one.key for one in self.consume).items():
            if count > 1:
                raise ValueError(
                    f"{count} tables consume from {source} in the group {group}: give each its own group"
                )
        if self.kind == "eventbridge" and self.consume:
            raise ValueError("eventbridge has nothing to consume: let a rule send to an SQS queue, and consume that")
        return self
