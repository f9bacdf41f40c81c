"""`/asyncapi.json`: the gateway's events and their channels as an AsyncAPI 3.0 document."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Response
from pydantic_core import to_json

from sevenfold.api.dependencies import API_PREFIX, TenantDep
from sevenfold.api.events.dependencies import BaseUrlDep, BrokersDep, SubscriptionStoreDep
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.contracts.config.brokers import BrokerConfig, ConsumeConfig, PublishConfig
from sevenfold.contracts.events.cloudevents import CloudEvent
from sevenfold.contracts.events.subscriptions import Subscription
from sevenfold.contracts.messages.maps import MessageFormat

router = APIRouter(tags=["event-driven"], route_class=StrictJsonRoute)

_PROTOCOLS = {"rabbitmq": "amqp"}  # Others have the names of their kinds.
_MESSAGE = {"$ref": "#/components/messages/CloudEvent"}


@router.get(
    "/asyncapi.json", operation_id="getAsyncApi", summary="Events as an AsyncAPI document", response_class=Response
)
async def asyncapi(
    base_url: BaseUrlDep, brokers: BrokersDep, store: SubscriptionStoreDep, tenant: TenantDep
) -> Response:
    """Describes the tenant's channels of this gateway and of its brokers, and the events that its subscriptions
    publish.
    """
    document = _build_document(base_url, _brokers_of(tenant, brokers), await store.list_all(tenant))
    return Response(to_json(document), media_type="application/json")


def _brokers_of(tenant: str, brokers: Mapping[str, BrokerConfig]) -> dict[str, BrokerConfig]:
    """Returns the brokers with the tenant's sources and routes; not those where it has none."""
    found = {}
    for name, broker in brokers.items():
        consume = [one for one in broker.consume if one.tenant == tenant]
        publish = [one for one in broker.publish if tenant in one.tenants]
        if consume or publish:
            found[name] = broker.model_copy(update={"consume": consume, "publish": publish})
    return found


def _build_document(
    base_url: str, brokers: Mapping[str, BrokerConfig], subscriptions: list[Subscription]
) -> dict[str, Any]:
    url = urlsplit(base_url)
    gateway = {"host": url.netloc, "pathname": url.path or "/", "protocol": url.scheme}
    servers: dict[str, Any] = {"gateway": gateway}
    channels: dict[str, Any] = {
        "gateway.in": _channel("gateway", f"{API_PREFIX}/events", "Publishers post events here."),
        "gateway.out": _channel(
            "gateway", f"{API_PREFIX}/events/stream", "Accepted events and ended reactions, live."
        ),
    }
    for name, broker in brokers.items():
        # the address may hold a password, so it is not shown
        protocol = _PROTOCOLS.get(broker.kind, broker.kind) + ("-secure" if broker.tls is not None else "")
        servers[name] = {"host": "configured", "pathname": "", "protocol": protocol}
        channels |= _broker_channels(name, broker)
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Sevenfold events", "version": "0.1.0", "description": _describe(subscriptions)},
        "defaultContentType": "application/cloudevents+json",
        "servers": servers,
        "channels": channels,
        "operations": {name: _operation(name) for name in channels},
        "components": {"messages": {"CloudEvent": _message(subscriptions)}},
    }


def _broker_channels(name: str, broker: BrokerConfig) -> dict[str, Any]:
    return {
        **{f"{name}.in.{one.source}": _channel(name, one.source, _describe_source(one)) for one in broker.consume},
        **{f"{name}.out.{one.to}": _channel(name, one.to, _describe_route(one)) for one in broker.publish},
    }


def _describe_source(source: ConsumeConfig) -> str:
    if source.start is not None:
        return f"Each message starts a run of the pattern {source.start.pattern}, whose outcome is the reply."
    text = "The gateway consumes events here."
    return text if source.map is None else f"{text} Other messages become events of the type {source.map.type}."


def _describe_route(route: PublishConfig) -> str:
    text = "The gateway publishes derived events here"
    if route.format is MessageFormat.PLAIN:
        return f"{text}, as plain messages: the event's data, and its attributes as headers of their own names."
    return f"{text}."


def _channel(server: str, address: str, description: str) -> dict[str, Any]:
    return {
        "address": address,
        "description": description,
        "servers": [{"$ref": f"#/servers/{server}"}],
        "messages": {"event": _MESSAGE},
    }


def _operation(channel: str) -> dict[str, Any]:
    action = "receive" if ".in" in channel else "send"
    pointer = channel.replace("~", "~0").replace("/", "~1")
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{pointer}"},
        "messages": [{"$ref": f"#/channels/{pointer}/messages/event"}],
    }


def _message(subscriptions: list[Subscription]) -> dict[str, Any]:
    schema = CloudEvent.model_json_schema()
    schema.pop("$defs")
    schema["properties"]["data"] = {}
    published = sorted({one.publishes for one in subscriptions if one.publishes})
    return {
        "name": "CloudEvent",
        "title": "A CloudEvent, structured or in binary mode",
        "contentType": "application/cloudevents+json",
        "payload": schema,
        "x-published-types": published,
    }


def _describe(subscriptions: list[Subscription]) -> str:
    lines = [
        f"- {one.name}: {one.agent} · {one.task}" + (f" → {one.publishes}" if one.publishes else "")
        for one in subscriptions
    ]
    return "Subscriptions:\n" + "\n".join(lines) if lines else "There are no subscriptions."
