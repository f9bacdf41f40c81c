"""What a broker will never take ends as a dead letter at once; the next event goes out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.support.broker_clients import client_of
from tests.support.broker_servers import KINDS, Server
from tests.support.events import dead_letters, event, published, wait_until_settled
from tests.support.stack import running_stack

LARGE = "x" * 200_000


def prepare_nats(server: Server) -> None:
    (server.directory / "nats.conf").write_text("max_payload: 65536\n")
    arguments = server.arguments()
    server.arguments = lambda: [*arguments, "-c", "nats.conf"]  # type: ignore[method-assign]


def prepare_rabbitmq(server: Server) -> None:
    with (server.directory / "rabbitmq.conf").open("a") as file:
        file.write("max_message_size = 65536\n")


def prepare_redis(server: Server) -> None:
    """Nothing to set up before it starts."""


PREPARATIONS: dict[str, Callable[[Server], None]] = {
    "nats": prepare_nats,
    "rabbitmq": prepare_rabbitmq,
    "redis": prepare_redis,
}


@contextmanager
def limited_broker(kind: str, directory: Path) -> Iterator[Server]:
    """A broker that takes messages of at most 64 kB; one of Redis, where the key `wrong` is no stream."""
    directory.mkdir()
    server: Server = KINDS[kind](directory)  # type: ignore[assignment]
    PREPARATIONS[kind](server)
    server.start()
    try:
        if kind == "redis":
            with redis.Redis(port=server.port) as client:
                client.set("wrong", "a string")
        yield server
    finally:
        server.close()


def configuration(kind: str, url: str) -> str:
    refused = "wrong" if kind == "redis" else "out"
    return (
        '[[subscriptions]]\nname = "s"\nfilter = { exact = { type = "r.in" } }\n'
        'agent = "echo"\ntask = "work"\npublishes = "r.out"\n'
        f'[brokers.main]\nkind = "{kind}"\nurl = "{url}"\n'
        '[[brokers.main.consume]]\nfrom = "out"\n'
        f'[[brokers.main.publish]]\nfilter = {{ exact = {{ type = "r.out" }} }}\nto = "{refused}"\n'
        '[[brokers.main.publish]]\nfilter = { exact = { type = "r.next" } }\nto = "out"\n'
    )


@pytest.mark.parametrize("kind", PREPARATIONS)
async def test_event_that_the_broker_refuses_becomes_a_dead_letter(tmp_path: Path, kind: str) -> None:
    with limited_broker(kind, tmp_path / kind) as server:
        async with (
            running_stack(tmp_path, more_config=configuration(kind, server.url)) as stack,
            client_of(kind, server.url) as client,
        ):
            refused = await published(stack.http, event("r.out", {"text": LARGE if kind != "redis" else "a"}))
            (letter,) = await dead_letters(stack.http, refused)
            assert "rejects the event" in str(letter), letter
            following = await published(stack.http, event("r.next", {"n": 1}))
            assert (await wait_until_settled(stack.http, following))["status"] == "completed"
            assert client is not None
