"""Bad days between a broker and Temporal: either one is away, or we are killed between the two."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families as parse_text
from temporalio.client import Client as Temporal
from temporalio.contrib.pydantic import pydantic_data_converter

from bench.ports import free_port
from sevenfold.runtime.config.settings import Settings
from tests.support.broker_clients import INBOUND, OUTBOUND, STRUCTURED, Client, client_of
from tests.support.broker_servers import KINDS, Aws, Kafka, Server, broker_section, broker_server
from tests.support.events import event
from tests.support.processes import EmbeddedTemporalOnly, until
from tests.support.stack import ROOT, Sevenfold, http_client, make_settings, sevenfold
from tests.support.stalling_proxy import stalling_proxy

# With a concurrency of 3: what another client can see that a broker still keeps of 5 messages none of which was
# acknowledged. RabbitMQ shows those alone that no consumer holds.
UNACKNOWLEDGED = {"nats": 5, "redis": 5, "kafka": 5, "rabbitmq": 2, "sqs": 5}


@asynccontextmanager
async def brokers(directory: Path) -> AsyncIterator[tuple[dict[str, Server | Kafka | Aws], dict[str, Client]]]:
    """A broker of each kind, and a client of each."""
    async with AsyncExitStack() as open_brokers:
        servers = {
            kind: open_brokers.enter_context(broker_server(kind, directory / kind, INBOUND, OUTBOUND))
            for kind in KINDS
        }
        clients = {
            kind: await open_brokers.enter_async_context(client_of(kind, server.url))
            for kind, server in servers.items()
        }
        yield servers, clients


def connecting(directory: Path, settings: Settings, *servers: tuple[str, Server | Kafka | Aws]) -> Settings:
    """Settings of a connector to these brokers, whose events one agent of the worker's reacts to."""
    directory.mkdir(exist_ok=True)
    made = make_settings(
        directory,
        more_config="\n".join(
            f'{broker_section(kind, server.url)}[[brokers.{kind}.consume]]\nfrom = "{INBOUND}"\nconcurrency = 3\n'
            for kind, server in servers
        ),
    )
    return settings.model_copy(update={"config": made.config})


async def send(client: Client, identity: str) -> None:
    cloud_event = event("t.fault", {"n": 1}, id=identity, source="/faults")
    await client.send({}, STRUCTURED, json.dumps(cloud_event).encode())


async def count_events(temporal: Temporal, status: str = "") -> int:
    query = "WorkflowType = 'EventDriven'" + (f" AND ExecutionStatus = '{status}'" if status else "")
    return (await temporal.count_workflows(query)).count


async def test_connector_killed_between_start_and_acknowledgement_duplicates_nothing(tmp_path: Path) -> None:
    """The answer to the start never arrives, we are killed, the broker brings the message again: one run."""
    settings = make_settings(tmp_path)
    async with (
        EmbeddedTemporalOnly(settings) as address,
        brokers(tmp_path) as (servers, clients),
        AsyncExitStack() as open_brokers,
    ):
        open_brokers.enter_context(sevenfold("worker", settings, TEMPORAL_ADDRESS=address))
        temporal = await Temporal.connect(address, data_converter=pydantic_data_converter)

        async def one(kind: str) -> None:
            client = clients[kind]
            mine = connecting(tmp_path / f"c-{kind}", settings, (kind, servers[kind]))
            mark = f"killed-{kind}"
            async with stalling_proxy(address, mark.encode()) as proxy:
                with sevenfold("connect", mine, TEMPORAL_ADDRESS=proxy.address) as connector:
                    await until(client.ready, seconds=60)
                    await asyncio.sleep(2)  # it reads the subscriptions and reports its heartbeat
                    await send(client, mark)
                    await asyncio.wait_for(proxy.stalled.wait(), 90)
                    await until(lambda: count_started(temporal, mark), seconds=60)
                    assert connector.process.poll() is None
                    connector.kill()
            await until(lambda: kept(client), seconds=60)
            with sevenfold("connect", mine, TEMPORAL_ADDRESS=address) as connector:
                await until(lambda: reports(connector, "broker connected"), seconds=60)
                await until(lambda: wait_until_settled(client), seconds=90)
                # RabbitMQ counts as settled what a consumer holds, which is not yet acknowledged
                await asyncio.sleep(5 if kind == "rabbitmq" else 1)
                connector.terminate()
            assert await client.left() == 0, "what was not acknowledged would be back now"

        await asyncio.gather(*map(one, KINDS))
        assert await count_events(temporal) == len(KINDS)


async def count_started(temporal: Temporal, identity: str) -> bool:
    async for execution in temporal.list_workflows("WorkflowType = 'EventDriven'"):
        if (await execution.memo())["event"]["event"]["id"] == identity:
            return True
    return False


async def kept(client: Client) -> bool:
    return await client.left() == 1


async def wait_until_settled(client: Client) -> bool:
    return await client.left() == 0


async def test_messages_wait_while_temporal_is_down(tmp_path: Path) -> None:
    """Nothing is acknowledged meanwhile, nothing is lost, and it goes on by itself."""
    settings = make_settings(tmp_path)
    async with brokers(tmp_path) as (servers, clients), AsyncExitStack() as open_brokers:
        async with EmbeddedTemporalOnly(settings) as address:
            env = {"TEMPORAL_ADDRESS": address}
            open_brokers.enter_context(sevenfold("worker", settings, **env))
            mine = connecting(tmp_path / "connector", settings, *servers.items())
            mine = mine.model_copy(update={"metrics_port": free_port()})
            connector = open_brokers.enter_context(sevenfold("connect", mine, **env))
            for client in clients.values():
                await until(client.ready, seconds=60)
        for number in range(5):
            for kind, client in clients.items():
                await send(client, f"{kind}-{number}")
        await asyncio.sleep(30)
        for kind, client in clients.items():
            assert await client.left() == UNACKNOWLEDGED[kind], kind
        assert "accepting a message failed" in connector.output()
        # Three of five are held. Redis's client has read one ahead; Kafka counts from the position that is committed.
        await until(lambda: shows_lag(mine, {"nats": 2, "rabbitmq": 2, "redis": 1, "kafka": 5, "sqs": 2}), seconds=30)
        async with EmbeddedTemporalOnly(settings):
            temporal = await Temporal.connect(address, data_converter=pydantic_data_converter)
            for client in clients.values():
                await until(lambda client=client: wait_until_settled(client), seconds=90)  # type: ignore[misc]
            await until(lambda: all_done(temporal, 5 * len(KINDS)), seconds=60)
            await until(lambda: shows_lag(mine, dict.fromkeys(KINDS, 0)), seconds=30)


async def shows_lag(connector: Settings, expected: dict[str, int]) -> bool:
    """Whether the connector's metrics show so many messages that wait, by broker."""
    assert connector.metrics_port is not None
    async with http_client(connector.metrics_port) as http:
        page = (await http.get("/metrics", timeout=10)).text
    found: Counter[str] = Counter()
    for family in parse_text(page):
        for one in family.samples:
            if one.name == "sevenfold_broker_lag_messages":
                assert one.labels["source"] == INBOUND
                found[one.labels["broker"]] += int(one.value)
    return found == expected


async def all_done(temporal: Temporal, count: int) -> bool:
    return await count_events(temporal, "Completed") == count


async def test_connector_waits_for_its_broker_and_refuses_a_wrong_configuration(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, more_config='[brokers.main]\nkind = "nats"\nurl_env = "TESTS_BROKER"\n')
    async with EmbeddedTemporalOnly(settings) as address:
        env = {"TEMPORAL_ADDRESS": address}
        code, output = ended(settings, **env)
        assert code == 2
        assert "the variable TESTS_BROKER (url_env) is not set" in output
        (tmp_path / "nats").mkdir()
        server = KINDS["nats"](tmp_path / "nats")
        with sevenfold("connect", settings, **env, TESTS_BROKER=server.url) as connector:
            await until(lambda: reports(connector, "broker is not reachable"), seconds=60)
            server.start()
            try:
                await until(lambda: reports(connector, "broker connected"), seconds=60)
                assert connector.terminate() == 0
            finally:
                server.close()
    settings.config.write_text("")
    code, output = ended(settings, **env)
    assert code == 2
    assert "No broker is configured in" in output


def ended(settings: Settings, **env: str) -> tuple[int, str]:
    with sevenfold("connect", settings, **env) as connector:
        return connector.process.wait(30), connector.output()


def test_without_brokers_no_broker_client_is_imported() -> None:
    script = "import sys, sevenfold.cli.servers; print([m for m in sys.modules if m.split('.')[0] in CLIENTS])"
    clients = "CLIENTS = ('faststream', 'aiokafka', 'nats', 'aio_pika', 'aiormq', 'redis', 'aioboto3', 'botocore'); "
    done = subprocess.run(
        [sys.executable, "-c", clients + script], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


async def reports(connector: Sevenfold, text: str) -> bool:
    return text in connector.output()
