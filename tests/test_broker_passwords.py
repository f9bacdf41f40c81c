"""URLs of brokers are checked at start, and their passwords stand in no log, whatever goes wrong."""

import asyncio
import logging
from pathlib import Path

import pytest

from bench.ports import free_port
from sevenfold.runtime.config.server_urls import BROKER_FORMS, check_server_url
from sevenfold.runtime.process.logs import configure_logs, hide_in_logs
from sevenfold.runtime.startup import StartupError
from tests.support.broker_servers import KINDS, Server
from tests.support.redis_server import PASSWORD as REDIS_PASSWORD
from tests.support.redis_server import RedisServer
from tests.support.stack import make_settings, sevenfold

PASSWORD = "Planted7Zq'\"3K%v"  # as it is in the URL: Planted7Zq%27%223K%25v
ENCODED = "Planted7Zq%27%223K%25v"
TRACE = "Planted7Zq"

# User and password, by kind of broker.
SCHEMES = {"nats": "nats", "rabbitmq": "amqp", "redis": "redis"}


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("nats", "nats://127.0.0.1:4222"),
        ("nats", "tls://token@nats.example"),
        ("rabbitmq", "amqps://user:p%2Fw@rabbit.example/vhost"),
        ("redis", "rediss://:pw@[::1]:6379/0?timeout=3"),
        ("redis", "unix:///run/redis.sock?db=1"),
        ("kafka", "kafka://a.example:9092,b.example:9092"),
        ("kafka", "127.0.0.1:9092"),
    ],
)
def test_valid_urls_are_accepted(kind: str, url: str) -> None:
    check_server_url("it", url, BROKER_FORMS[kind])


@pytest.mark.parametrize(
    ("kind", "url", "problem"),
    [
        ("nats", f"user:{TRACE}@127.0.0.1", "does not begin with nats:// or tls://"),
        ("nats", f"amqp://user:{TRACE}@127.0.0.1", "does not begin with nats://"),
        ("rabbitmq", f"amqp://user:{TRACE}/x@127.0.0.1", "Percent-encode"),
        ("rabbitmq", f"amqp://user:{TRACE}#x@127.0.0.1", "Percent-encode"),
        ("redis", f"redis://user:{TRACE}@x@127.0.0.1", "Percent-encode"),
        ("redis", f"redis://user:{TRACE}@127.0.0.1:{TRACE}", "no valid host and port"),
        ("redis", f"redis://user:{TRACE}@127.0.0.1:70000", "no valid host and port"),
        ("redis", f"redis://user:{TRACE}@", "no valid host and port"),
        ("redis", f"redis://user:{TRACE}@a,b", "no valid host and port"),
        ("kafka", f"kafka://user:{TRACE}@127.0.0.1:9092", "belong into the section's sasl"),
        ("kafka", f"127.0.0.1:1?password={TRACE}", "has a query"),
        ("kafka", f"kafka://127.0.0.1:9092/{TRACE}", "has a path"),
        ("redis", f"redis://127.0.0.1:6379/{TRACE}", "has a path"),
    ],
)
def test_invalid_url_is_refused_and_not_shown(kind: str, url: str, problem: str) -> None:
    with pytest.raises(StartupError, match=problem) as raised:
        check_server_url("Broker main: the URL", url, BROKER_FORMS[kind])
    assert str(raised.value).startswith("Broker main: the URL")
    assert TRACE not in str(raised.value)


def test_secret_is_hidden_in_tracebacks_of_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    try:
        configure_logs({"": "info"})
        hide_in_logs(PASSWORD)
        try:
            raise ConnectionError(f"amqp://user:{PASSWORD}@127.0.0.1, {PASSWORD!r}")
        except ConnectionError:
            logging.getLogger("aiormq").exception("it failed with %s", PASSWORD)
    finally:
        root.handlers, _ = handlers, root.setLevel(level)
    logged = capsys.readouterr().err
    assert "it failed with ***" in logged
    assert TRACE not in logged


@pytest.mark.parametrize("kind", SCHEMES)
async def test_password_of_an_unreachable_broker_is_not_logged(tmp_path: Path, kind: str) -> None:
    url = f"{SCHEMES[kind]}://user:{ENCODED}@127.0.0.1:{free_port()}"
    await logged_while_failing(tmp_path, kind, url)


@pytest.mark.parametrize("kind", SCHEMES)
async def test_wrong_password_is_not_logged(tmp_path: Path, kind: str, redis: RedisServer) -> None:
    if kind == "redis":
        await logged_while_failing(tmp_path, kind, redis.url.replace(REDIS_PASSWORD, ENCODED))
        return
    server: Server = KINDS[kind](tmp_path)  # type: ignore[assignment]
    if kind == "nats":
        arguments = server.arguments()
        server.arguments = lambda: [*arguments, "--user", "user", "--pass", "another"]  # type: ignore[method-assign]
    server.start()
    try:
        url = server.url.replace("://", f"://user:{ENCODED}@").replace("guest:guest@", "")
        await logged_while_failing(tmp_path, kind, url)
    finally:
        server.close()


async def logged_while_failing(directory: Path, kind: str, url: str) -> None:
    """Runs the product with such a broker for a while, at the level debug, and searches its log."""
    broker = (
        f'[brokers.main]\nkind = "{kind}"\nurl_env = "BROKER_URL"\n[[brokers.main.consume]]\nfrom = "in"\n'
        '[[brokers.main.publish]]\nfilter = { exact = { type = "x" } }\nto = "out"\n'
    )
    settings = make_settings(directory, more_config=broker, log_level="debug")
    with sevenfold("dev", settings, BROKER_URL=url) as process:
        async with asyncio.timeout(60):
            while "broker is not reachable" not in process.output():
                await asyncio.sleep(0.2)
        await asyncio.sleep(2)
        process.terminate()
    output = process.output()
    found = [line[:300] for line in output.splitlines() if TRACE in line or ENCODED in line]
    assert not found


async def test_redis_of_streams_is_checked_too(tmp_path: Path) -> None:
    for url, problem in (
        (f"redis://:{TRACE}/x@127.0.0.1", "Percent-encode"),
        (f"redis://:{ENCODED}@127.0.0.1:{free_port()}", "does not answer"),
    ):
        with sevenfold("dev", make_settings(tmp_path, redis_url=url)) as process:
            assert process.process.wait(60) == 2
        assert problem in process.output()
        assert "SEVENFOLD_REDIS_URL" in process.output()
        assert TRACE not in process.output()
