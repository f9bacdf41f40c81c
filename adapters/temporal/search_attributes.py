"""Search attributes of runs, events and deliveries."""

from collections.abc import Iterable, Sequence

from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

from sevenfold.contracts.identity import parse_public_id
from sevenfold.contracts.webhooks.delivery import (
    DELIVERY_ATTRIBUTES,
    DELIVERY_LIST_ATTRIBUTES,
    DeliveryState,
    Webhook,
)


def keyword_attributes(names: Sequence[str], values: Iterable[object]) -> TypedSearchAttributes:
    """Builds search attributes of the type Keyword from names and values of equal number."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(SearchAttributeKey.for_keyword(name), str(value))
            for name, value in zip(names, values, strict=True)
        ]
    )


def delivery_search_attributes(tenant: str, webhook: Webhook, run_workflow_id: str) -> TypedSearchAttributes:
    """Builds the search attributes of a new delivery."""
    values = (tenant, DeliveryState.PENDING, webhook.host, parse_public_id(run_workflow_id))
    attributes = keyword_attributes(("Tenant", *DELIVERY_ATTRIBUTES), values)
    if webhook.endpoint_id is None:
        return attributes
    (name,) = DELIVERY_LIST_ATTRIBUTES
    return attributes.updated(SearchAttributePair(SearchAttributeKey.for_keyword_list(name), [webhook.endpoint_id]))
