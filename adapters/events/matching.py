"""Which subscriptions react to an event: the one predicate, for who orders events and for who dispatches them."""

from collections.abc import Iterable

import structlog

from sevenfold.contracts.cloudevents import CloudEvent
from sevenfold.contracts.event_filters import EventFilter
from sevenfold.contracts.event_sources import subscription_source
from sevenfold.contracts.events import MAX_HOPS, count_hops
from sevenfold.contracts.subscriptions import Subscription

log = structlog.get_logger(__name__)

# Filters that have raised, by what they belong to: each is reported once in the life of a process.
_reported: set[str] = set()


def find_matching(subscriptions: Iterable[Subscription], event: CloudEvent) -> list[Subscription]:
    """Those whose filter matches, unless the event is their own or too far away from its origin."""
    if count_hops(event) > MAX_HOPS:
        return []
    return [
        one
        for one in subscriptions
        if (one.allow_self_trigger or event.source != subscription_source(one.name))
        and matches(one.filter, event, f"subscription {one.name}")
    ]


def matches(event_filter: EventFilter, event: CloudEvent, owner: str) -> bool:
    """Whether the filter matches. One that raises does not, and must not hold up all the others."""
    try:
        return event_filter.matches(event)
    except Exception as error:
        if owner not in _reported:
            _reported.add(owner)
            log.error("a filter raises, and counts as no match", filter_of=owner, error=repr(error)[:500])
        return False
