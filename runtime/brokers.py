"""Builds the broker connections from settings and configuration."""

import os

from sevenfold.adapters.brokers.backlog import Backlog
from sevenfold.adapters.brokers.connection import BrokerConnection
from sevenfold.adapters.brokers.consumer import BrokerConsumer
from sevenfold.adapters.brokers.message import Transport
from sevenfold.adapters.brokers.runs import MessageRuns
from sevenfold.adapters.temporal.durations import Durations
from sevenfold.contracts.config.brokers import BrokerConfig
from sevenfold.contracts.events.event_driven import event_task_queue
from sevenfold.runtime.config.server_urls import BROKER_FORMS, check_server_url
from sevenfold.runtime.process.logs import hide_in_logs
from sevenfold.runtime.services import Services
from sevenfold.runtime.startup import StartupError


def broker_connections(services: Services) -> list[BrokerConnection]:
    """Returns one connection per broker of the configuration. Raises StartupError."""
    client, config = services.client, services.config
    runs = MessageRuns(
        client,
        services.settings.task_queue,
        config,
        services.access,
        services.quotas.starts,
        Durations(client, config.duration_estimates),
        services.sealer,
    )
    return [
        BrokerConnection(
            name,
            build_transport(name, broker, services.settings.payloads_s3_bucket),
            _consumer(services, runs, name, broker).consume,
        )
        for name, broker in config.brokers.items()
    ]


def _consumer(services: Services, runs: MessageRuns, name: str, broker: BrokerConfig) -> BrokerConsumer:
    backlogs = {
        one.key: Backlog(
            services.client,
            event_task_queue(services.settings.task_queue) if one.start is None else runs.task_queue_of(one.start),
            one.max_backlog,
            one.max_age,
        )
        for one in broker.consume
    }
    return BrokerConsumer(services.event_ingest, runs, backlogs, name)


def build_transport(name: str, broker: BrokerConfig, bucket: str | None = None) -> Transport:
    """Returns a broker's transport, which is not connected yet. `bucket`: of S3, for large messages of SQS. Raises
    StartupError.
    """
    # Imported on use: the clients are extras, and only configured brokers need theirs.
    extra = "aws" if broker.is_aws else "brokers"
    try:
        return _aws_transport(name, broker, bucket) if broker.is_aws else _broker_transport(name, broker)
    except ModuleNotFoundError as error:
        packages = "aioboto3" if broker.is_aws else "'faststream[nats,rabbit,redis]' aiokafka cramjam"
        raise StartupError(
            f"Broker {name} needs the extra `{extra}` ({error}): install {packages} "
            f"beside Sevenfold, from a checkout with: .venv/bin/pip install -e '.[{extra}]'"
        ) from None


def _aws_transport(name: str, broker: BrokerConfig, bucket: str | None) -> Transport:
    from sevenfold.adapters.brokers.aws.client import AwsConfigError, open_session  # noqa: PLC0415

    try:
        open_session()
    except AwsConfigError as error:
        raise StartupError(f"Broker {name}: AWS is not configured: {error}.") from None
    publish_to = [route.to for route in broker.publish]
    if broker.kind == "eventbridge":
        from sevenfold.adapters.brokers.aws.eventbridge import EventBridgeTransport  # noqa: PLC0415

        return EventBridgeTransport(publish_to)
    from sevenfold.adapters.brokers.aws.sqs import SqsTransport  # noqa: PLC0415

    return SqsTransport(broker.consume, publish_to, bucket)


def _broker_transport(name: str, broker: BrokerConfig) -> Transport:
    url = broker.url or os.environ.get(broker.url_env or "")
    if not url:
        raise StartupError(
            f"Broker {name}: the variable {broker.url_env} (url_env) is not set. Set it to the broker's URL."
        )
    check_server_url(f"Broker {name}: the URL", url, BROKER_FORMS[broker.kind])
    match broker.kind:
        case "nats":
            from sevenfold.adapters.brokers.nats import NatsTransport  # noqa: PLC0415

            return NatsTransport(url, broker.consume)
        case "rabbitmq":
            from sevenfold.adapters.brokers.rabbitmq import RabbitTransport  # noqa: PLC0415

            return RabbitTransport(url, broker.consume)
        case "redis":
            from sevenfold.adapters.brokers.redis import RedisTransport  # noqa: PLC0415

            return RedisTransport(url, broker.consume)
        case "kafka":
            return _kafka_transport(name, broker, url)
    raise AssertionError(f"{broker.kind} is a service of AWS")


def _kafka_transport(name: str, broker: BrokerConfig, url: str) -> Transport:
    from sevenfold.adapters.brokers.kafka.security import KafkaSecurityError, build_security  # noqa: PLC0415
    from sevenfold.adapters.brokers.kafka.transport import KafkaTransport  # noqa: PLC0415

    password = ""
    if broker.sasl is not None:
        password = os.environ.get(broker.sasl.password_env, "")
        if not password:
            raise StartupError(
                f"Broker {name}: the variable {broker.sasl.password_env} (sasl.password_env) is not set. "
                "Set it to the password."
            )
        hide_in_logs(password)
    try:
        security = build_security(broker.tls, broker.sasl, password)
    except KafkaSecurityError as error:
        raise StartupError(f"Broker {name}: {error}. Name PEM files that this process may read.") from None
    return KafkaTransport(url, broker.consume, security)
