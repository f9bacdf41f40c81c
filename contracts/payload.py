"""The base of every type that crosses a process border, and the JSON types they are made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

JsonObject = dict[str, JsonValue]

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Payload(BaseModel):
    """camelCase on the wire, snake_case in Python, immutable.

    Unknown fields are ignored: a newer process may send what an older one does not know yet, and a running
    workflow's history outlives deployments.
    """

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, frozen=True)


class RequestBody(Payload):
    """A request body. Here an unknown field is an error, so that a misspelt option is never silently lost."""

    model_config = ConfigDict(extra="forbid")
