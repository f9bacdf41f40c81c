"""Dependencies of handlers that take, show or stream events."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import Depends

from sevenfold.adapters.events.activity_feed import ActivityFeed
from sevenfold.adapters.events.ingest import EventIngest
from sevenfold.adapters.streams.hub import StreamHubs
from sevenfold.api.dependencies import component
from sevenfold.api.events.dead_letter_queue import DeadLetterQueue
from sevenfold.api.events.reader import EventReader
from sevenfold.api.events.subscription_store import SubscriptionStore
from sevenfold.contracts.config.brokers import BrokerConfig

ActivityFeedDep = Annotated[ActivityFeed, Depends(component("activity_feed"))]
# The address of this gateway, for absolute links.
BaseUrlDep = Annotated[str, Depends(component("base_url"))]
BrokersDep = Annotated[Mapping[str, BrokerConfig], Depends(component("brokers"))]
DeadLetterQueueDep = Annotated[DeadLetterQueue, Depends(component("dead_letter_queue"))]
EventIngestDep = Annotated[EventIngest, Depends(component("event_ingest"))]
EventReaderDep = Annotated[EventReader, Depends(component("event_reader"))]
StreamHubsDep = Annotated[StreamHubs, Depends(component("stream_hubs"))]
SubscriptionStoreDep = Annotated[SubscriptionStore, Depends(component("subscription_store"))]
