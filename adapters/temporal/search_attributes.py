"""What runs and events are found by in Temporal."""

from collections.abc import Iterable, Sequence

from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

from sevenfold.contracts.identity import parse_public_id
from sevenfold.contracts.webhooks import DELIVERY_ATTRIBUTES, DeliveryState, Webhook


def keyword_attributes(names: Sequence[str], values: Iterable[object]) -> TypedSearchAttributes:
    """Search attributes of the type Keyword, as many as there are names."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(SearchAttributeKey.for_keyword(name), str(value))
            for name, value in zip(names, values, strict=True)
        ]
    )


def delivery_search_attributes(tenant: str, webhook: Webhook, run_workflow_id: str) -> TypedSearchAttributes:
    """What a new delivery is found by."""
    values = (tenant, DeliveryState.PENDING, webhook.host, parse_public_id(run_workflow_id))
    return keyword_attributes(("Tenant", *DELIVERY_ATTRIBUTES), values)
