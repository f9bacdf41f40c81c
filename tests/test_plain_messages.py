"""Messages that are no CloudEvents become events by the map of their consumer."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from nats.js.errors import NotFoundError
from pydantic import ValidationError

from sevenfold.adapters.brokers.mapping import map_message
from sevenfold.adapters.brokers.message import BrokerMessage
from sevenfold.contracts.config.brokers import ConsumeConfig
from sevenfold.contracts.events.cloudevents import InvalidEventError
from sevenfold.contracts.messages.maps import EventMap
from tests.support.broker_clients import INBOUND, OUTBOUND, STRUCTURED, Client, Got, client_of
from tests.support.broker_servers import KINDS, broker_section, broker_server
from tests.support.events import EVENTS, LETTERS, event
from tests.support.processes import until
from tests.support.stack import Stack, running_stack

ORDER = {"type": "order.created", "source": "/shop", "id": "$body/order/id", "subject": "$headers/X-Customer"}


async def no_ack() -> None:
    raise AssertionError("a mapped message is acknowledged by the consumer")


def message(body: bytes, event_map: dict[str, str], **headers: str) -> BrokerMessage:
    return BrokerMessage(
        source=ConsumeConfig.model_validate({"from": "orders", "map": event_map}),
        place="orders-0-17",
        headers=headers,
        content_type=headers.get("content-type"),
        body=body,
        ack=no_ack,
    )


def mapped(body: bytes, event_map: dict[str, str], **headers: str) -> dict[str, Any]:
    return map_message(message(body, event_map, **headers)).model_dump(exclude_none=True)


def test_values_are_constants_or_pointers_into_body_and_headers() -> None:
    body = {"order": {"id": 7, "lines": [{"sku": "a/b"}]}, "at": "2026-11-30T08:00:00Z"}
    more = {"time": "$body/at", "data": "$body/order"}
    found = mapped(json.dumps(body).encode(), ORDER | more, **{"x-customer": "c 1"})
    assert found == {
        "specversion": "1.0",
        "type": "order.created",
        "source": "/shop",
        "id": "7",
        "subject": "c 1",
        "time": "2026-11-30T08:00:00Z",
        "datacontenttype": "application/json",
        "data": {"id": 7, "lines": [{"sku": "a/b"}]},
    }
    assert mapped(json.dumps(body).encode(), ORDER | {"type": "$body/order/lines/0/sku"})["type"] == "a/b"
    assert mapped(b'{"a/b": {"~c": "x"}}', ORDER | {"type": "$body/a~1b/~0c"})["type"] == "x"


@pytest.mark.parametrize("body", [b"{}", b"[]", b"1", b'{"order": null}', b'{"order": {"id": ""}}'])
def test_without_a_usable_id_the_place_at_the_broker_is_the_id(body: bytes) -> None:
    found = mapped(body, ORDER)
    assert found["id"] == "orders-0-17"
    assert "subject" not in found
    assert found["data"] == json.loads(body)


def test_text_and_bytes_are_data() -> None:
    text = mapped("grüß dich".encode(), ORDER | {"format": "text", "id": "$body"})
    assert (text["id"], text["data"], text["datacontenttype"]) == ("grüß dich", "grüß dich", "text/plain")
    raw = mapped(b"\xff\x00", ORDER | {"format": "bytes"}, **{"content-type": "image/png"})
    assert (raw["data_base64"], raw["datacontenttype"]) == ("/wA=", "image/png")
    assert "data" not in raw


@pytest.mark.parametrize(
    ("body", "more", "problem"),
    [
        (b"\xff", {}, "its body is not json"),
        (b"{", {}, "its body is not json"),
        (b"\xff", {"format": "text"}, "its body is not text"),
        (b"{}", {"type": "$body/kind"}, "nothing at $body/kind"),
        (b"{}", {"type": "$headers/kind"}, "nothing at $headers/kind"),
        (b'{"order": {"id": {}}}', {}, "neither text nor a number"),
        (b'{"order": {"id": true}}', {}, "neither text nor a number"),
        (b'{"order": {"id": "x"}, "at": "yesterday"}', {"time": "$body/at"}, "time"),
        (b'{"order": {"id": "%s"}}' % (b"x" * 300), {}, "id"),
        (b"[1, 2]", {"source": "$body/01"}, "nothing at"),
        (b"[1, 2]", {"source": "$body/-1"}, "nothing at"),
    ],
)
def test_what_cannot_be_mapped_is_invalid(body: bytes, more: dict[str, str], problem: str) -> None:
    with pytest.raises(InvalidEventError) as refusal:
        mapped(body, ORDER | more)
    assert problem in str(refusal.value)


@pytest.mark.parametrize("value", ["$bodyy", "$body.order", "$headers", "$headersx/y", ""])
def test_values_that_look_like_references_are_refused(value: str) -> None:
    with pytest.raises(ValidationError):
        EventMap.model_validate(ORDER | {"subject": value})


@dataclass
class Shop:
    """A product whose consumers map orders, and a client of each broker."""

    stack: Stack
    clients: dict[str, Client]

    async def events_of(self, kind: str) -> list[dict[str, Any]]:
        page = (await self.stack.http.get(EVENTS, params={"source": f"/{kind}", "limit": 100})).json()
        return [one["event"] for one in page["items"]]

    async def send(self, kind: str, body: bytes, **headers: str) -> None:
        await self.clients[kind].send(headers, "application/json", body)


@pytest.fixture(scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with AsyncExitStack() as opened:
        config, urls = [], {}
        for kind in KINDS:
            server = opened.enter_context(broker_server(kind, tmp_path_factory.mktemp(kind), INBOUND, OUTBOUND))
            urls[kind] = server.url
            config.append(
                f"{broker_section(kind, server.url)}"
                f'[[brokers.{kind}.consume]]\nfrom = "{INBOUND}"\n'
                f'map = {{ type = "order.created", source = "/{kind}", id = "$body/orderId", '
                'subject = "$headers/x-customer" }\n'
                f'[[brokers.{kind}.publish]]\nfilter = {{ exact = {{ type = "out.{kind}" }} }}\n'
                f'to = "{OUTBOUND}"\nformat = "plain"\n'
            )
        directory: Path = tmp_path_factory.mktemp("shop")
        stack = await opened.enter_async_context(running_stack(directory, more_config="\n".join(config)))
        clients = {kind: await opened.enter_async_context(client_of(kind, url)) for kind, url in urls.items()}
        for client in clients.values():
            await until(client.ready, seconds=60)
            client.read_prefix = ""
        yield Shop(stack, clients)


@pytest.mark.parametrize("kind", KINDS)
async def test_plain_messages_become_events_once(shop: Shop, kind: str) -> None:
    order = json.dumps({"orderId": f"o-{kind}", "total": 12.5}).encode()
    for _ in range(3):
        await shop.send(kind, order, **{"x-customer": "c1"})
    await shop.send(kind, b"not json")
    nameless = json.dumps({"total": 1}).encode()
    await shop.send(kind, nameless)
    await shop.clients[kind].send({}, STRUCTURED, json.dumps(event("t.whole", source=f"/{kind}")).encode())
    await until(lambda: has_events(shop, kind, 3), seconds=60)
    found = {one["type"]: one for one in await shop.events_of(kind) if one["id"] != f"o-{kind}"}
    (mapped_order,) = [one for one in await shop.events_of(kind) if one["id"] == f"o-{kind}"]
    assert mapped_order["type"] == "order.created"
    assert mapped_order["subject"] == "c1"
    assert mapped_order["data"] == {"orderId": f"o-{kind}", "total": 12.5}
    assert found["t.whole"]["source"] == f"/{kind}"
    assert found["order.created"]["id"].startswith(("in-events-", "sevenfold-in-events-"))
    letters = (await shop.stack.http.get(LETTERS, params={"limit": 100})).json()["items"]
    assert [one for one in letters if "its body is not json" in json.dumps(one) and kind in json.dumps(one)]


async def has_events(shop: Shop, kind: str, count: int) -> bool:
    return len(await shop.events_of(kind)) >= count


@pytest.mark.parametrize("kind", KINDS)
async def test_plain_routes_send_data_with_attributes_as_headers(shop: Shop, kind: str) -> None:
    sent = event(f"out.{kind}", {"total": 12.5}, subject="s1", source="/plain")
    assert (await shop.stack.http.post(EVENTS, json=sent)).is_success
    found: list[Got] = []
    async with asyncio.timeout(60):
        while not found:
            with suppress(NotFoundError):  # NATS has no stream before the first message.
                found = await shop.clients[kind].got()
    (got,) = found
    assert json.loads(got.body) == {"total": 12.5}
    expected = {"id": sent["id"], "type": f"out.{kind}", "source": "/plain", "subject": "s1"}
    assert {name: unquote(got.attributes[name]) for name in expected} == expected
    assert not [name for name in got.attributes if name.lower().startswith(("ce", "cloudevents", "specversion"))]
    assert (got.content_type or got.attributes.get("content-type")) == "application/json"
