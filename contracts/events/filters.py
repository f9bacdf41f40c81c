"""Filters of subscriptions: the filter dialects of CloudEvents Subscriptions, and one for data.

An unknown dialect is an error: ignoring it would match every event.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from sevenfold.contracts.events.cloudevents import CloudEvent

_Path = Annotated[str, Field(min_length=1, max_length=500)]
# More digits cannot be a list index.
_MAX_INDEX = 9
_Attributes = Annotated[dict[str, str], Field(min_length=1, max_length=20)]


class EventFilter(BaseModel):
    """One dialect. `exact`, `prefix` and `suffix` map attributes to values, all of which must match. `all`, `any` and
    `not` combine filters. `data` maps dotted paths in the data to a value or a list of allowed values.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    exact: _Attributes | None = None
    prefix: _Attributes | None = None
    suffix: _Attributes | None = None
    all: Annotated[list["EventFilter"], Field(min_length=1, max_length=50)] | None = None
    any: Annotated[list["EventFilter"], Field(min_length=1, max_length=50)] | None = None
    # `not` is a Python keyword.
    negated: "EventFilter | None" = Field(default=None, alias="not")
    data: Annotated[dict[_Path, JsonValue], Field(min_length=1, max_length=20)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _wrap_list(cls, raw: Any) -> Any:
        return {"all": raw} if isinstance(raw, list) else raw

    @model_validator(mode="after")
    def _check_dialect(self) -> "EventFilter":
        if sum(getattr(self, name) is not None for name in type(self).model_fields) != 1:
            raise ValueError(
                "must have exactly one of exact, prefix, suffix, all, any, not and data; combine several with all"
            )
        return self

    def matches(self, event: CloudEvent) -> bool:
        """Whether the event matches."""
        if self.exact is not None:
            return all(event.attribute(name) == value for name, value in self.exact.items())
        if self.prefix is not None:
            return all((event.attribute(name) or "").startswith(value) for name, value in self.prefix.items())
        if self.suffix is not None:
            return all((event.attribute(name) or "").endswith(value) for name, value in self.suffix.items())
        if self.all is not None:
            return all(one.matches(event) for one in self.all)
        if self.any is not None:
            return any(one.matches(event) for one in self.any)
        if self.negated is not None:
            return not self.negated.matches(event)
        return all(_equal(value_at_path(event.data, path), expected) for path, expected in (self.data or {}).items())


def _equal(value: JsonValue, expected: JsonValue) -> bool:
    if isinstance(expected, list):
        return any(_equal(value, one) for one in expected if not isinstance(one, list)) or value in expected
    # True == 1 in Python, but not in JSON.
    return value == expected and isinstance(value, bool) == isinstance(expected, bool)


def value_at_path(data: JsonValue, path: str) -> JsonValue:
    """Returns the member at a dotted path such as `customer.id` or `items.0.sku`; None if it is absent."""
    for step in path.split("."):
        if isinstance(data, dict):
            data = data.get(step)
        elif isinstance(data, list) and _is_index(step) and int(step) < len(data):
            data = data[int(step)]
        else:
            return None
    return data


def _is_index(step: str) -> bool:
    return step.isascii() and step.isdecimal() and len(step) <= _MAX_INDEX
