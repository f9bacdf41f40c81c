"""What runs and events are found by in Temporal."""

from collections.abc import Iterable, Sequence

from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes


def keyword_attributes(names: Sequence[str], values: Iterable[object]) -> TypedSearchAttributes:
    """Search attributes of the type Keyword, as many as there are names."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(SearchAttributeKey.for_keyword(name), str(value))
            for name, value in zip(names, values, strict=True)
        ]
    )
