"""Matches subscriptions to an event; the ingest and the dispatch share it."""

from collections.abc import Iterable

import structlog

from sevenfold.contracts.events.cloudevents import CloudEvent
from sevenfold.contracts.events.event_driven import MAX_HOPS, count_hops
from sevenfold.contracts.events.filters import EventFilter
from sevenfold.contracts.events.sources import subscription_source
from sevenfold.contracts.events.subscriptions import Subscription

log = structlog.get_logger(__name__)

# Filters that have raised, by owner: each is logged once per process.
_reported: set[str] = set()


def find_matching(subscriptions: Iterable[Subscription], event: CloudEvent) -> list[Subscription]:
    """Returns the subscriptions whose filter matches, except those that published the event themselves (unless
    `allow_self_trigger`). Returns none for an event with too many hops.
    """
    if count_hops(event) > MAX_HOPS:
        return []
    return [
        one
        for one in subscriptions
        if (one.allow_self_trigger or event.source != subscription_source(one.name))
        and matches(one.filter, event, f"subscription {one.name}")
    ]


def matches(event_filter: EventFilter, event: CloudEvent, owner: str) -> bool:
    """Whether the filter matches. A filter that raises does not match, and does not affect the other filters."""
    try:
        return event_filter.matches(event)
    except Exception as error:
        if owner not in _reported:
            _reported.add(owner)
            log.error(
                "a filter raised an exception and counts as not matching", filter_of=owner, error=type(error).__name__
            )
        return False
