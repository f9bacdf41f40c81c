"""Builds the broker connections from settings and configuration."""

import os

from sevenfold.adapters.brokers.connection import BrokerConnection
from sevenfold.adapters.brokers.consumer import BrokerConsumer
from sevenfold.adapters.brokers.message import Transport
from sevenfold.adapters.events.ingest import EventIngest
from sevenfold.contracts.config import BrokerConfig, SevenfoldConfig
from sevenfold.runtime.server_urls import BROKER_FORMS, check_server_url
from sevenfold.runtime.startup import StartupError


def broker_connections(config: SevenfoldConfig, ingest: EventIngest) -> list[BrokerConnection]:
    """Returns one connection per broker of the configuration. Raises StartupError."""
    return [
        BrokerConnection(name, _transport(name, broker), BrokerConsumer(ingest, name).consume)
        for name, broker in config.brokers.items()
    ]


def _transport(name: str, broker: BrokerConfig) -> Transport:
    url = broker.url or os.environ.get(broker.url_env or "")
    if not url:
        raise StartupError(
            f"Broker {name}: the variable {broker.url_env} (url_env) is not set. Set it to the broker's URL."
        )
    check_server_url(f"Broker {name}: the URL", url, BROKER_FORMS[broker.kind])
    # Imported on use: the clients are an extra, and only configured brokers need theirs.
    try:
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
                from sevenfold.adapters.brokers.kafka import KafkaTransport  # noqa: PLC0415

                return KafkaTransport(url, broker.consume)
    except ModuleNotFoundError as error:
        raise StartupError(
            f"Broker {name} needs the extra `brokers` ({error}): install 'faststream[kafka,nats,rabbit,redis]' "
            "beside Sevenfold, from a checkout with: .venv/bin/pip install -e '.[brokers]'"
        ) from None
