"""Ten thousand messages over five brokers while the connector is killed and the brokers restart."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from temporalio.client import Client as Temporal
from temporalio.contrib.pydantic import pydantic_data_converter

from sevenfold.runtime.config.settings import Settings
from tests.support.aws_server import Aws
from tests.support.broker_clients import INBOUND, OUTBOUND, Client, client_of
from tests.support.broker_servers import KINDS, Kafka, Server, broker_section, broker_server
from tests.support.processes import EmbeddedTemporalOnly, until
from tests.support.stack import Sevenfold, make_settings, sevenfold

MESSAGES = 2_000  # to each broker
KILLS = 5


def configuration(urls: dict[str, str]) -> str:
    return "\n".join(
        f"{broker_section(kind, url)}"
        f'[[brokers.{kind}.consume]]\nfrom = "{INBOUND}"\n'
        'start = { pattern = "queue", task = "count", id = "$body/id" }\n'
        for kind, url in urls.items()
    )


async def test_ten_thousand_messages_start_ten_thousand_runs(tmp_path: Path) -> None:
    """No worker runs: what is counted are the runs that Temporal has. A repeated message has the id of its run."""
    async with AsyncExitStack() as opened:
        servers = {
            kind: opened.enter_context(broker_server(kind, tmp_path / kind, INBOUND, OUTBOUND)) for kind in KINDS
        }
        urls = {kind: server.url for kind, server in servers.items()}
        settings = make_settings(tmp_path, more_config=configuration(urls))
        address = await opened.enter_async_context(EmbeddedTemporalOnly(settings))
        temporal = await Temporal.connect(address, data_converter=pydantic_data_converter)
        clients = {kind: await opened.enter_async_context(client_of(kind, url)) for kind, url in urls.items()}
        async with killed_again_and_again(settings, address) as kills:
            for client in clients.values():
                await until(client.ready, seconds=60)
            await asyncio.gather(*(publish(kind, clients[kind], servers[kind]) for kind in KINDS))
            await until(lambda: reached(temporal, MESSAGES * len(KINDS)), seconds=240)
            for client in clients.values():
                await until(lambda client=client: has_none_left(client), seconds=120)  # type: ignore[misc]
        assert len(kills) == KILLS
        await asyncio.sleep(2)
        assert await count(temporal) == MESSAGES * len(KINDS), "a repeated message starts nothing"


@asynccontextmanager
async def killed_again_and_again(settings: Settings, address: str) -> AsyncIterator[list[int]]:
    """A connector that is killed after seconds of work, until it has been often enough; then one that stays."""
    kills: list[int] = []

    async def run() -> None:
        while True:
            with sevenfold("connect", settings, TEMPORAL_ADDRESS=address) as connector:
                await until(lambda: has_connected(connector), seconds=60)
                if len(kills) == KILLS:
                    await asyncio.Event().wait()
                await asyncio.sleep(4)
                kills.append(connector.process.pid)
                connector.kill()

    running = asyncio.create_task(run())
    try:
        yield kills
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def has_connected(connector: Sevenfold) -> bool:
    return connector.output().count("broker connected") >= len(KINDS)


async def publish(kind: str, client: Client, server: Server | Kafka | Aws) -> None:
    """Sends the messages; in the middle the broker restarts. What was not confirmed is sent again."""
    for number in range(MESSAGES):
        if number == MESSAGES // 2:
            await asyncio.to_thread(server.stop)
            await asyncio.sleep(1)
            await asyncio.to_thread(server.start)
        body = json.dumps({"id": f"{kind}-{number}"}).encode()
        async with asyncio.timeout(90):
            while True:
                try:
                    await asyncio.wait_for(client.send({}, "application/json", body), 10)
                    break
                except Exception:
                    await asyncio.sleep(0.5)


async def count(temporal: Temporal) -> int:
    return (await temporal.count_workflows("WorkflowType = 'AsynchronousQueue'")).count


async def reached(temporal: Temporal, number: int) -> bool:
    await asyncio.sleep(0.5)
    return await count(temporal) >= number


async def has_none_left(client: Client) -> bool:
    return await client.left() == 0
