"""Request bodies that start runs."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, field_validator

from sevenfold.contracts.agents.interface import AgentName, Message
from sevenfold.contracts.payload import JsonObject, RequestBody
from sevenfold.contracts.webhooks.endpoints import EndpointName

_METADATA_LIMIT = 8_192

TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$", description="The task for the agent.")]


WebhookUrl = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2_048,
        description="Public https URL that gets the run's outcome: completed, failed or cancelled.",
        examples=["https://client.com/webhooks/ai-results"],
    ),
]
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


def _check_secret(secret: SecretStr) -> SecretStr:
    """Raises ValueError for a `whsec_` secret that is not base64, because receivers' libraries would refuse every
    delivery. A short secret, such as the article's `whsec_abc123`, is used as plain text.
    """
    prefix, found, encoded = secret.get_secret_value().partition("whsec_")
    is_standard = bool(found) and not prefix
    if is_standard and (not _BASE64.fullmatch(encoded) or len(encoded.rstrip("=")) % 4 == 1):
        raise ValueError(
            "starts with whsec_, but the rest is not base64: append 32 random bytes in base64, as "
            "`openssl rand -base64 32` prints them, or remove the prefix"
        )
    return secret


WebhookSecret = Annotated[
    SecretStr,
    AfterValidator(_check_secret),
    Field(
        min_length=1,
        max_length=256,
        description="Signs the webhooks. Use `whsec_` and 24 to 64 bytes in base64. Stored encrypted.",
    ),
]


# Bounds of `maxTokens`, and of `maxCost` in US dollars.
MAX_TOKENS, MAX_COST = 10**12, 1e9


class StartOptions(RequestBody):
    """Options that every pattern accepts."""

    agent: AgentName | None = Field(default=None, description="The agent's name; the configured default if absent.")
    params: JsonObject = Field(default={}, description="Options for the agent.")
    timeout: Annotated[float, Field(ge=0.5, le=86_400, allow_inf_nan=False)] = Field(
        default=300.0, description="Deadline of the whole run, in seconds."
    )
    priority: int = Field(default=3, ge=1, le=5, description="1 is served first, 5 last.")
    metadata: JsonObject = Field(default={}, description="Yours; echoed back. At most 8 kB as JSON.")
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        le=MAX_TOKENS,
        strict=True,
        description="The run is stopped when its attempts and items have reported as many tokens.",
    )
    max_cost: float | None = Field(
        default=None,
        gt=0,
        le=MAX_COST,
        strict=True,
        allow_inf_nan=False,
        description="The same in US dollars, by the agent's price.",
    )

    webhook_endpoint: EndpointName | None = Field(
        default=None,
        description="The name of a stored webhook endpoint, in place of a URL. Without both, the default endpoint "
        "applies, if there is one.",
    )
    webhook_url: WebhookUrl | None = None
    webhook_secret: WebhookSecret | None = None
    previous_webhook_secret: WebhookSecret | None = Field(
        default=None, description="The previous secret during a rotation: both sign."
    )

    @field_validator("metadata")
    @classmethod
    def _check_metadata_size(cls, metadata: JsonObject) -> JsonObject:
        # The run's memo holds it, and every list returns it.
        if len(str(metadata)) > _METADATA_LIMIT:
            raise ValueError(f"must not exceed {_METADATA_LIMIT} characters as JSON")
        return metadata


_QUERY_EXAMPLE: dict[str, Any] = {
    "query": "Analyze this customer feedback",
    "context": {"customerId": "12345", "previousInteractions": 5},
}


class QueryRequest(StartOptions):
    """Pattern 1: a query that is answered in the response."""

    model_config = ConfigDict(json_schema_extra={"examples": [_QUERY_EXAMPLE]})

    query: str = Field(min_length=1, description="The query for the agent.")
    context: JsonObject = Field(default={}, description="Background for the agent.")
    messages: list[Message] = Field(
        default=[], max_length=1_000, description="The conversation, with the query as its last message."
    )


class StreamRequest(StartOptions):
    """Pattern 6: a query whose answer is streamed."""

    model_config = ConfigDict(json_schema_extra={"examples": [_QUERY_EXAMPLE]})

    query: str = Field(min_length=1, description="The query for the agent.")
    context: JsonObject = Field(default={}, description="Background for the agent.")
    messages: list[Message] = Field(
        default=[], max_length=1_000, description="The conversation, with the query as its last message."
    )


class TaskRequest(StartOptions):
    """Pattern 5: work whose progress and result the client polls."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"task": "generate_report", "params": {"title": "Week 47", "metrics": {"orders": 318}}}]
        }
    )

    task: TaskName
