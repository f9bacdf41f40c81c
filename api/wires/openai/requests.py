"""Requests of OpenAI's clients. Unknown fields are ignored, here alone: clients send many that agents do not have."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from sevenfold.contracts.agent import AgentName
from sevenfold.contracts.model_requests import MODEL_OPTIONS
from sevenfold.contracts.payload import JsonObject
from sevenfold.contracts.requests import StartOptions

MAX_MESSAGES = 1_000

# The member of a run's context with the id of the response that it continues.
PREVIOUS = "previousResponseId"

_Number = Annotated[float, Field(allow_inf_nan=False)]


class OpenAIRequest(BaseModel):
    """What both APIs have. `sevenfold`: what this gateway takes beside, with the names of its own requests."""

    model_config = ConfigDict(extra="ignore")

    model: AgentName
    stream: bool | None = None
    metadata: JsonObject | None = None
    sevenfold: StartOptions | None = None
    temperature: _Number | None = None
    top_p: _Number | None = None

    def start_options(self) -> StartOptions:
        """Returns the options of the run: the model's options are its params, beside those under `sevenfold`."""
        given = self.sevenfold or StartOptions()
        params = {name: value for name in MODEL_OPTIONS if (value := getattr(self, name, None)) is not None}
        return given.model_copy(
            update={
                "agent": self.model,
                "params": {**params, **given.params},
                "metadata": {**(self.metadata or {}), **given.metadata},
            }
        )


class ChatMessage(BaseModel):
    """A message; its tool calls are ignored."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[JsonObject] | None = None


class StreamOptions(BaseModel):
    """Options of a streamed completion."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool | None = None


class ChatRequest(OpenAIRequest):
    """Body of `POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    n: int | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: _Number | None = None
    frequency_penalty: _Number | None = None
    reasoning_effort: str | None = None
    response_format: JsonObject | None = None


class ResponsesRequest(OpenAIRequest):
    """Body of `POST /v1/responses`."""

    input: str | Annotated[list[JsonObject], Field(max_length=MAX_MESSAGES)] = ""
    instructions: str | None = None
    background: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    conversation: JsonValue = None
    prompt: JsonValue = None
    max_output_tokens: int | None = None
    reasoning: JsonObject | None = None
    text: JsonObject | None = None

    @property
    def max_completion_tokens(self) -> int | None:
        """As Chat Completions calls it."""
        return self.max_output_tokens

    @property
    def reasoning_effort(self) -> JsonValue:
        """As Chat Completions calls it."""
        return (self.reasoning or {}).get("effort")

    @property
    def response_format(self) -> JsonValue:
        """As Chat Completions calls it."""
        found: Any = (self.text or {}).get("format")
        if isinstance(found, dict) and found.get("type") == "json_schema":
            return {"type": "json_schema", "json_schema": {k: v for k, v in found.items() if k != "type"}}
        return found if isinstance(found, dict) and found.get("type") != "text" else None
