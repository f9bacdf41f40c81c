"""Redis Streams transport."""

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import uuid4

from faststream.redis import RedisBroker, StreamSub
from faststream.redis.annotations import RedisStreamMessage
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from sevenfold.adapters.brokers.faststream_common import CONSUMING, PING_SECONDS
from sevenfold.adapters.brokers.message import (
    BrokerMessage,
    Lag,
    MessageHandler,
    UnpublishableError,
    headers_as_text,
    name_headers,
)
from sevenfold.contracts.config.brokers import ConsumeConfig
from sevenfold.contracts.events.cloudevents import CloudEvent, to_binary_mode
from sevenfold.contracts.events.event_driven import OutboundRoute

# An entry is claimed from a consumer that was idle for this long, in seconds.
_IDLE_SECONDS = 30.0
_POLL_MILLISECONDS = 500
_BODY = "data"


class RedisTransport:
    """A consumer group per stream: one subscriber for new entries, one for entries of dead consumers.

    An entry is an event in binary mode: `ce_…` for each attribute, `content-type`, and the body as `data`.
    """

    def __init__(self, url: str, consume: list[ConsumeConfig]) -> None:
        self._url = url
        self._consume = consume
        self._broker: RedisBroker | None = None
        self._client: Redis | None = None
        self._subscribers: list[Any] = []
        self._consumer = ""

    async def start(self, on_message: MessageHandler) -> None:
        """Connects. A missing stream or group is created, and read from its beginning."""
        self._client = Redis.from_url(self._url)
        await self._client.ping()
        self._broker = RedisBroker(self._url, parser=_parse_entry, **CONSUMING)
        self._consumer = consumer = uuid4().hex
        self._subscribers = []
        for one in self._consume:
            await _ensure_group(self._client, one)
            self._subscribe(self._broker, one, consumer, on_message, last_id=">", max_records=one.concurrency)
            self._subscribe(self._broker, one, consumer, on_message, min_idle_time=int(_IDLE_SECONDS * 1000))
        await self._broker.start()

    def _subscribe(
        self, broker: RedisBroker, one: ConsumeConfig, consumer: str, on_message: MessageHandler, **reads: Any
    ) -> None:
        async def handle(message: RedisStreamMessage) -> None:
            entry = message.raw_message["message_ids"][0]
            headers = headers_as_text(message.headers)
            await on_message(
                BrokerMessage(
                    source=one,
                    place=f"{one.source}-{entry.decode()}",
                    headers=headers,
                    content_type=headers.get("content-type") or None,
                    body=message.body,
                    ack=partial(self._acknowledge, one, entry),
                    keep_alive=partial(self._extend_claim, one, consumer, entry),
                    keep_alive_seconds=_IDLE_SECONDS / 3,
                )
            )

        stream = StreamSub(
            one.source, group=one.group, consumer=consumer, polling_interval=_POLL_MILLISECONDS, **reads
        )
        subscriber = broker.subscriber(stream=stream, max_workers=one.concurrency, no_reply=True)
        subscriber(handle)
        self._subscribers.append(subscriber)

    async def _acknowledge(self, one: ConsumeConfig, entry: bytes) -> None:
        if self._client is not None:
            await self._client.xack(one.source, one.group, entry)

    async def _extend_claim(self, one: ConsumeConfig, consumer: str, entry: bytes) -> None:
        if self._client is not None:
            await self._client.xclaim(one.source, one.group, consumer, 0, [entry], idle=0, justid=True)

    async def read_lag(self) -> Lag:
        """Returns the entries that each group has still to deliver. Redis before 7.0 does not count them."""
        found = {}
        if self._client is not None:
            for one in self._consume:
                for group in await self._client.xinfo_groups(one.source):
                    if group["name"].decode() == one.group and group.get("lag") is not None:
                        found[one.source, ""] = int(group["lag"])
        return found

    def is_alive(self) -> bool:
        """A subscriber ends permanently when its group is gone, as after a flush."""
        return self._broker is not None and all(subscriber.running for subscriber in self._subscribers)

    async def ping(self) -> bool:
        """Whether the broker answers now."""
        return self._broker is not None and await self._broker.ping(PING_SECONDS)

    async def stop(self) -> None:
        """Closes the connections."""
        broker, client = self._broker, self._client
        self._broker = self._client = None
        if broker is not None:
            await broker.stop()
        if client is not None:
            try:
                for one in self._consume:
                    await _remove_consumer(client, one, self._consumer)
            finally:
                await client.aclose()

    async def publish(self, event: CloudEvent, route: OutboundRoute) -> None:
        """Publishes an event. Redis detects no duplicates: readers deduplicate by source and id. Raises
        UnpublishableError.
        """
        to, form = route.to, route.format
        assert self._client is not None, "publish is called after start"  # noqa: S101
        attributes, content_type, body = to_binary_mode(event)
        fields: dict[Any, Any] = dict(name_headers(attributes, "ce_", form))
        fields |= {"content-type": content_type} if content_type else {}
        try:
            await self._client.xadd(to, {**fields, _BODY: body})
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            raise UnpublishableError(f"Redis rejects the event: {to} is not a stream") from error


async def _ensure_group(client: Redis, one: ConsumeConfig) -> None:
    try:
        await client.xgroup_create(one.source, one.group, id="0", mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


async def _remove_consumer(client: Redis, one: ConsumeConfig, consumer: str) -> None:
    """Removes a consumer's name unless it has pending entries, which would be lost with it."""
    for known in await client.xinfo_consumers(one.source, one.group):
        if known["name"].decode() == consumer and known["pending"] == 0:
            await client.xgroup_delconsumer(one.source, one.group, consumer)


async def _parse_entry(message: Any, original: Callable[[Any], Any]) -> Any:
    """Parses an entry's fields: FastStream's own parser knows only its own envelope."""
    fields = message["data"]
    parsed = await original({**message, "data": {b"__data__": b""}})
    parsed.raw_message = message
    parsed.body = fields.get(_BODY.encode(), b"")
    parsed.headers = headers_as_text({_text(name): value for name, value in fields.items() if _text(name) != _BODY})
    return parsed


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
