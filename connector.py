"""The composition root of a process with broker connections: `sevenfold connect`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import structlog
from temporalio.worker import Worker

from sevenfold.activities.events.publish import BrokerPublication
from sevenfold.adapters.brokers.connection import BrokerConnection
from sevenfold.adapters.brokers.message import UnknownBrokerError
from sevenfold.contracts.events.event_driven import PublishToBrokerInput, broker_task_queue
from sevenfold.runtime.brokers import broker_connections
from sevenfold.runtime.config.config_file import load_config
from sevenfold.runtime.config.settings import Settings
from sevenfold.runtime.probe_server import served_probes
from sevenfold.runtime.process.event_loop_watch import arm_watchdog
from sevenfold.runtime.process.garbage_collection import freeze_gc
from sevenfold.runtime.services import Services, open_services
from sevenfold.runtime.startup import StartupError
from sevenfold.runtime.temporal.workers import UNVERSIONED_BUILD_ID

log = structlog.get_logger(__name__)


class _BrokerRouter:
    """Publishes through the broker connection that a route names."""

    def __init__(self, connections: Mapping[str, BrokerConnection]) -> None:
        self._connections = connections

    async def publish(self, publish_input: PublishToBrokerInput) -> None:
        """Raises UnknownBrokerError for a broker that this process does not have; another process may have it."""
        connection = self._connections.get(publish_input.route.broker)
        if connection is None:
            raise UnknownBrokerError(
                f"Broker {publish_input.route.broker} is not configured in the process that took this activity."
            )
        await connection.publish(publish_input.event, publish_input.route)


@asynccontextmanager
async def running_connector(services: Services) -> AsyncIterator[Callable[[], list[str]]]:
    """Broker connections that consume and publish while the block runs; does nothing without brokers. Yields what
    lists the brokers that are not connected.
    """
    connections = {one.name: one for one in broker_connections(services)}
    if not connections:
        yield list
        return
    publication = BrokerPublication(_BrokerRouter(connections))
    running = [asyncio.create_task(connection.run()) for connection in connections.values()]
    try:
        async with Worker(
            services.client,
            task_queue=broker_task_queue(services.settings.task_queue),
            activities=[publication.publish_to_broker],
            graceful_shutdown_timeout=services.settings.grace_period,
            build_id=UNVERSIONED_BUILD_ID,
        ):
            yield lambda: [name for name, one in connections.items() if not one.is_reachable]
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def run_connector(settings: Settings) -> None:
    """Runs the broker connections until it is cancelled. Raises StartupError."""
    config = load_config(settings.config)
    if not config.brokers:
        raise StartupError(f"No broker is configured in {settings.config}: add a section such as [brokers.main].")
    async with (
        open_services(settings, config) as services,
        running_connector(services) as find_lost_brokers,
        served_probes(services, find_lost_brokers=find_lost_brokers),
    ):
        freeze_gc()
        arm_watchdog()
        log.info("connector runs", brokers=sorted(config.brokers))
        await asyncio.Event().wait()
