"""The composition root of a process that is connected to brokers: `sevenfold connect`."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import structlog
from temporalio.worker import Worker

from activities.event_publication import BrokerPublication
from adapters.brokers.connection import BrokerConnection
from adapters.brokers.message import UnknownBrokerError
from contracts.events import BrokerOrder, broker_queue
from runtime.brokers import broker_connections
from runtime.config_file import load_config
from runtime.garbage import settle
from runtime.services import Services, opened_services
from runtime.settings import Settings
from runtime.startup import StartupError

log = structlog.get_logger(__name__)


class _Publisher:
    """Publishes by the connection that a route names."""

    def __init__(self, connections: Mapping[str, BrokerConnection]) -> None:
        self._connections = connections

    async def publish(self, order: BrokerOrder) -> None:
        """Raises UnknownBrokerError for one of another process's configuration: that one may have better luck."""
        connection = self._connections.get(order.route.broker)
        if connection is None:
            raise UnknownBrokerError(f"No broker {order.route.broker} is configured in the process that took this.")
        await connection.publish(order.event, order.route.to)


@asynccontextmanager
async def running_connector(services: Services) -> AsyncIterator[None]:
    """Connections that consume and publish while the block runs; nothing where no broker is configured."""
    connections = {one.name: one for one in broker_connections(services.config, services.events)}
    if not connections:
        yield
        return
    publication = BrokerPublication(_Publisher(connections))
    running = [asyncio.create_task(connection.run()) for connection in connections.values()]
    try:
        async with Worker(
            services.client,
            task_queue=broker_queue(services.settings.task_queue),
            activities=[publication.publish_to_broker],
            graceful_shutdown_timeout=services.settings.grace,
        ):
            yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def run_connector(settings: Settings) -> None:
    """Runs until it is cancelled."""
    config = load_config(settings.config)
    if not config.brokers:
        raise StartupError(f"There is no broker in {settings.config}: add a section such as [brokers.main].")
    async with opened_services(settings, config) as services, running_connector(services):
        settle()
        log.info("connector runs", brokers=sorted(config.brokers))
        await asyncio.Event().wait()
