"""Base classes of all types that cross a process boundary, and JSON types."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

JsonObject = dict[str, JsonValue]

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Payload(BaseModel):
    """camelCase on the wire, snake_case in Python, immutable.

    Unknown fields are ignored: a newer process may send fields that an older one does not have, and the histories of
    running workflows outlive deployments.
    """

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, frozen=True)


class RequestBody(Payload):
    """A request body. Unknown fields are an error, so that a misspelt option does not get lost."""

    model_config = ConfigDict(extra="forbid")
