"""The bodies that start runs."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, field_validator

from sevenfold.contracts.agent import AgentName
from sevenfold.contracts.payload import JsonObject, RequestBody

_METADATA_LIMIT = 8_192

TaskName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$", description="What the agent shall do.")
]


WebhookUrl = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2_048,
        description="Where the run's end is posted to, whatever it is: an https address that the internet reaches.",
        examples=["https://client.com/webhooks/ai-results"],
    ),
]
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


def _check_secret(secret: SecretStr) -> SecretStr:
    """Refuses a `whsec_` secret that is not base64: receivers' libraries would refuse every delivery. (A short one,
    such as the article's `whsec_abc123`, is used as plain text.)
    """
    prefix, found, encoded = secret.get_secret_value().partition("whsec_")
    is_standard = bool(found) and not prefix
    if is_standard and (not _BASE64.fullmatch(encoded) or len(encoded.rstrip("=")) % 4 == 1):
        raise ValueError(
            "begins with whsec_, and what follows is not base64: take 32 random bytes in base64 behind it, as "
            "`openssl rand -base64 32` makes them, or leave the prefix out"
        )
    return secret


WebhookSecret = Annotated[
    SecretStr,
    AfterValidator(_check_secret),
    Field(
        min_length=1,
        max_length=256,
        description="Signs what is posted. `whsec_` and 24 to 64 bytes in base64 are best; kept sealed.",
    ),
]


class StartOptions(RequestBody):
    """What every start accepts beside the pattern's own fields."""

    agent: AgentName | None = Field(default=None, description="The agent's name; the configured default if absent.")
    params: JsonObject = Field(default={}, description="Options for the agent.")
    timeout: Annotated[float, Field(ge=0.5, le=86_400, allow_inf_nan=False)] = Field(
        default=300.0, description="Deadline of the whole run, in seconds."
    )
    priority: int = Field(default=3, ge=1, le=5, description="1 is served first, 5 last.")
    metadata: JsonObject = Field(default={}, description="Yours; echoed back. At most 8 kB as JSON.")

    webhook_url: WebhookUrl | None = None
    webhook_secret: WebhookSecret | None = None
    previous_webhook_secret: WebhookSecret | None = Field(
        default=None, description="The one before, while receivers change over: both sign."
    )

    @field_validator("metadata")
    @classmethod
    def _check_metadata_size(cls, metadata: JsonObject) -> JsonObject:
        # It travels with the run's memo, through every listing.
        if len(str(metadata)) > _METADATA_LIMIT:
            raise ValueError(f"must not exceed {_METADATA_LIMIT} characters as JSON")
        return metadata


_QUERY_EXAMPLE: dict[str, Any] = {
    "query": "Analyze this customer feedback",
    "context": {"customerId": "12345", "previousInteractions": 5},
}


class QueryRequest(StartOptions):
    """Pattern 1: a question that is answered in the response."""

    model_config = ConfigDict(json_schema_extra={"examples": [_QUERY_EXAMPLE]})

    query: str = Field(min_length=1, description="What the agent is asked.")
    context: JsonObject = Field(default={}, description="What the agent should know.")


class StreamRequest(StartOptions):
    """Pattern 6: a question whose answer is read while it is given."""

    model_config = ConfigDict(json_schema_extra={"examples": [_QUERY_EXAMPLE]})

    query: str = Field(min_length=1, description="What the agent is asked.")
    context: JsonObject = Field(default={}, description="What the agent should know.")


class TaskRequest(StartOptions):
    """Pattern 5: work whose progress and result the client comes back for."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"task": "generate_report", "params": {"title": "Week 47", "metrics": {"orders": 318}}}]
        }
    )

    task: TaskName
