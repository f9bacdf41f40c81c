"""Kafka as its users know it: TLS and SASL, groups of several members, where a new group begins."""

import asyncio
import itertools
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from aiokafka.errors import KafkaError
from confluent_kafka import TopicPartition
from pydantic import ValidationError

from sevenfold.adapters.brokers.kafka.security import build_security
from sevenfold.adapters.brokers.kafka.transport import KafkaTransport
from sevenfold.adapters.brokers.message import BrokerMessage
from sevenfold.contracts.config.brokers import BrokerConfig, ConsumeConfig, SaslConfig, TlsConfig
from sevenfold.contracts.events.cloudevents import event_from_json
from sevenfold.contracts.events.event_driven import OutboundRoute
from sevenfold.runtime.brokers import build_transport
from sevenfold.runtime.startup import StartupError
from tests.support.broker_servers import Kafka
from tests.support.certificates import Certificate, make_certificate
from tests.support.kafka_proxy import KafkaProxy, kafka_proxy
from tests.support.processes import until

PASSWORD = "pä55-word, =2"
NUMBERS = itertools.count()


@dataclass
class Topic:
    """A topic of two partitions, whose group has the same name."""

    url: str
    name: str

    def places(self, partition: int, offsets: range) -> list[str]:
        return [f"{self.name}-{partition}-{offset}" for offset in offsets]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    server = Kafka(tmp_path_factory.mktemp("kafka"))
    yield server
    server.close()


@pytest.fixture
def topic(cluster: Kafka) -> Topic:
    name = f"t{next(NUMBERS)}"
    cluster.topic(name)
    return Topic(cluster.url, name)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


class Member:
    """A connector's consumer: what it was given, and what it has acknowledged. While `is_held`, it holds each."""

    def __init__(self, transport: KafkaTransport) -> None:
        self.transport = transport
        self.given: list[str] = []
        self.done: list[str] = []
        self.release = asyncio.Event()
        self.release.set()

    async def handle(self, message: BrokerMessage) -> None:
        self.given.append(message.place)
        await self.release.wait()
        await message.ack()
        self.done.append(message.place)


@asynccontextmanager
async def member(
    topic: Topic, url: str | None = None, *, sasl: SaslConfig | None = None, **more: Any
) -> AsyncIterator[Member]:
    consume = ConsumeConfig.model_validate({"from": topic.name, "group": topic.name} | more)
    security = build_security(None, sasl, PASSWORD)
    made = Member(KafkaTransport(url or topic.url, [consume], security))
    try:
        await made.transport.start(made.handle)
        yield made
    finally:
        await made.transport.stop()


async def send(topic: Topic, count: int, partition: int = 0, compression: str = "none") -> None:
    producer = confluent_kafka.Producer({"bootstrap.servers": topic.url, "compression.type": compression})
    for number in range(count):
        producer.produce(topic.name, b"%d" % number, partition=partition)
    assert await asyncio.to_thread(producer.flush, 20) == 0


async def committed(topic: Topic) -> list[int]:
    """The committed offset of each partition; -1001 without one."""

    def read() -> list[int]:
        consumer = confluent_kafka.Consumer({"bootstrap.servers": topic.url, "group.id": topic.name})
        try:
            return [one.offset for one in consumer.committed([TopicPartition(topic.name, n) for n in range(2)], 10)]
        finally:
            consumer.close()

    return await asyncio.to_thread(read)


@pytest.mark.parametrize("mechanism", [None, "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_messages_pass_over_tls_with_sasl(
    topic: Topic, certificate: Certificate, mechanism: str | None
) -> None:
    sasl = mechanism and SaslConfig.model_validate(
        {"mechanism": mechanism, "username": "me, =2", "password_env": "PASSWORD"}
    )
    tls = TlsConfig(ca_file=certificate.cert, cert_file=certificate.cert, key_file=certificate.key)
    async with proxy_over_tls(topic, certificate, mechanism) as proxy:
        security = build_security(tls, sasl or None, PASSWORD)
        consume = ConsumeConfig.model_validate({"from": topic.name, "group": topic.name})
        made = Member(KafkaTransport(proxy.url, [consume], security))
        try:
            await made.transport.start(made.handle)
            await made.transport.publish(
                event_from_json({"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}),
                OutboundRoute(broker="main", to=topic.name, task_queue=""),
            )
            await until(lambda: made.done, seconds=30)
            assert await made.transport.ping()
        finally:
            await made.transport.stop()
    assert set(proxy.authenticated) == ({"me, =2"} if mechanism else set())
    assert all(proxy.has_client_certificate)
    assert proxy.has_client_certificate


@asynccontextmanager
async def proxy_over_tls(topic: Topic, certificate: Certificate, mechanism: str | None) -> AsyncIterator[KafkaProxy]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificate.cert))
    context.load_cert_chain(certificate.cert, certificate.key)
    context.verify_mode = ssl.CERT_REQUIRED
    async with kafka_proxy(topic.url, tls=context, mechanism=mechanism, users={"me, =2": PASSWORD}) as proxy:
        yield proxy


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_a_wrong_password_is_refused_and_not_shown(topic: Topic, mechanism: str) -> None:
    sasl = SaslConfig.model_validate({"mechanism": mechanism, "username": "me", "password_env": "PASSWORD"})
    async with kafka_proxy(topic.url, mechanism=mechanism, users={"me": "another"}) as proxy:
        with pytest.raises(KafkaError) as raised:
            async with asyncio.timeout(30), member(topic, proxy.url, sasl=sasl):
                pass
    assert not proxy.authenticated
    assert PASSWORD not in str(raised.value)


def test_an_unusable_certificate_or_password_is_named_at_the_start(
    tmp_path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "cannot be used" in refused({"tls": {"ca_file": str(tmp_path / "no.pem")}})
    locked = make_certificate(tmp_path, passphrase="secret")
    message = refused({"tls": {"cert_file": str(locked.cert), "key_file": str(locked.key)}})
    assert "server.key cannot be used" in message
    sasl = {"mechanism": "PLAIN", "username": "me", "password_env": "KAFKA_PASSWORD_OF_A_TEST"}
    monkeypatch.delenv("KAFKA_PASSWORD_OF_A_TEST", raising=False)
    assert "KAFKA_PASSWORD_OF_A_TEST (sasl.password_env) is not set" in refused({"sasl": sasl})


def refused(more: dict[str, Any]) -> str:
    broker = BrokerConfig.model_validate({"kind": "kafka", "url": "kafka://127.0.0.1:1"} | more)
    with pytest.raises(StartupError) as raised:
        build_transport("main", broker)
    return str(raised.value)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"sasl": {"mechanism": "PLAIN", "username": "u", "password_env": "P"}}, "write amqps://"),
        ({"tls": {}}, "write amqps://"),
        ({"consume": [{"from": "q", "auto_offset_reset": "latest"}]}, "auto_offset_reset is a setting of Kafka"),
    ],
)
def test_settings_of_kafka_are_refused_elsewhere(more: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        BrokerConfig.model_validate({"kind": "rabbitmq", "url": "amqp://127.0.0.1"} | more)


async def test_a_second_member_takes_its_share_and_nothing_is_given_twice(topic: Topic) -> None:
    async with kafka_proxy(topic.url) as proxy, member(topic, proxy.url) as first:
        await send(topic, 5, 0)
        await send(topic, 5, 1)
        await until(lambda: len(first.done) == 10, seconds=30)
        async with member(topic, proxy.url) as second:
            await until(lambda: shares(first, second), seconds=30)
            await send(topic, 5, 0)
            await send(topic, 5, 1)
            await until(lambda: len(first.done) + len(second.done) == 20, seconds=30)
        assert sorted(first.given + second.given) == sorted(topic.places(0, range(10)) + topic.places(1, range(10)))
        assert len(second.done) == 5
        # The second has left: its partition comes back. This cluster refuses commits while it rebalances, which
        # Kafka does not: what is done meanwhile may come twice.
        await send(topic, 2, 0)
        await send(topic, 2, 1)
        await until(lambda: len(set(first.done)) == 19, seconds=30)
    assert await committed(topic) == [12, 12]


async def shares(*members: Member) -> bool:
    return all([len(await one.transport.read_lag()) == 1 for one in members])


async def test_what_is_held_at_a_rebalance_goes_to_its_new_member_and_no_offset_passes_it(topic: Topic) -> None:
    async with kafka_proxy(topic.url) as proxy, member(topic, proxy.url) as first:
        await until(first.transport.is_alive, seconds=10)
        first.release.clear()
        await send(topic, 4, 0)
        await send(topic, 4, 1)
        await until(lambda: len(first.given) == 8, seconds=30)
        async with member(topic, proxy.url) as second:
            await until(lambda: len(second.done) == 4, seconds=30)
            (taken,) = {place.split("-")[1] for place in second.done}
            assert second.done == topic.places(int(taken), range(4))
            kept = 1 - int(taken)
            assert (await committed(topic))[kept] in (0, -1001)
            assert not first.done, "what was cancelled acknowledges nothing"
            first.release.set()
            await until(lambda: len(first.done) == 4, seconds=30)
            assert first.done == topic.places(kept, range(4))
            await until(lambda: is_committed(topic, [4, 4]), seconds=10)


async def test_a_refused_commit_is_tried_again_though_no_other_record_comes(topic: Topic, cluster: Kafka) -> None:
    async with member(topic) as made:
        await until(made.transport.is_alive, seconds=10)
        cluster.refuse_commits(2)
        await send(topic, 1)
        await until(lambda: len(made.done) == 1, seconds=30)
        await until(lambda: is_committed(topic, [1, -1001]), seconds=20)


async def is_committed(topic: Topic, expected: list[int]) -> bool:
    return await committed(topic) == expected


@pytest.mark.parametrize(
    ("reset", "expected"), [(None, [0, 1, 2, 3]), ("earliest", [0, 1, 2, 3]), ("latest", [2, 3])]
)
async def test_a_new_group_begins_at_its_auto_offset_reset(topic: Topic, reset: str | None, expected: range) -> None:
    await send(topic, 2)
    async with member(topic, auto_offset_reset=reset) as made:
        await until(lambda: reset != "latest" or made.transport.is_alive(), seconds=10)
        await until(lambda: knows_its_partitions(made), seconds=20)
        await asyncio.sleep(1)
        await send(topic, 2)
        await until(lambda: len(made.done) >= len(expected), seconds=20)
        assert made.done == topic.places(0, expected)


async def knows_its_partitions(made: Member) -> bool:
    return len(await made.transport.read_lag()) == 2


async def test_no_more_than_concurrency_is_in_flight_and_a_gap_holds_the_offset(topic: Topic) -> None:
    async with member(topic, concurrency=3) as made:
        made.release.clear()
        await send(topic, 10)
        await until(lambda: len(made.given) == 3, seconds=30)
        await asyncio.sleep(0.5)
        assert len(made.given) == 3
        made.release.set()
        await until(lambda: len(made.done) == 10, seconds=30)
        assert sorted(made.given) == sorted(topic.places(0, range(10)))
    assert await committed(topic) == [10, -1001]


async def test_compressed_records_are_read(topic: Topic) -> None:
    async with member(topic) as made:
        for compression in ("gzip", "snappy", "lz4", "zstd"):
            await send(topic, 20, compression=compression)
        await until(lambda: len(made.done) == 80, seconds=30)
