"""Requests of OpenAI's clients. Unknown fields are ignored, here alone: clients send many that agents do not have."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.contracts.agents.interface import AgentName
from sevenfold.contracts.agents.model_requests import MODEL_OPTIONS
from sevenfold.contracts.payload import JsonObject
from sevenfold.contracts.runs.requests import StartOptions

MAX_MESSAGES = 1_000

TEXT_PARTS = ("text", "input_text", "output_text")

# Members of a run's context: the id of the response that it continues; and false, if the client does not want the
# response to be read again.
PREVIOUS, STORE = "previousResponseId", "store"

_Number = Annotated[float, Field(allow_inf_nan=False)]


class OpenAIRoute(StrictJsonRoute):
    """Clients send query parameters too that agents have no use for."""

    ignores_unknown_parameters = True


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


def _check_content(value: JsonValue) -> JsonValue:
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError("must be a text or a list of parts")
    for number, part in enumerate(value):
        if complaint := find_bad_part(part):
            raise ValueError(f"part {number} {complaint}")
    return value


def _check_items(value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError("must be a text or a list of items")
    if len(value) > MAX_MESSAGES:
        raise ValueError(f"has {len(value):,} items, and may have {MAX_MESSAGES:,}")
    for number, item in enumerate(value):
        content = item.get("content") if isinstance(item, dict) else None
        for part in content if isinstance(content, list) else []:
            if complaint := find_bad_part(part):
                raise ValueError(f"item {number}: a part {complaint}")
    return value


def find_bad_part(part: JsonValue) -> str | None:
    """Returns what is wrong with a part of a message, in words; None if nothing is. Unknown kinds are the agent's."""
    if not isinstance(part, dict):
        return "must be an object"
    kind, image = part.get("type"), part.get("image_url")
    if kind in TEXT_PARTS and not isinstance(part.get("text"), str):
        return f"of the type {kind} must have a text"
    if kind == "image_url" and not (isinstance(image, dict) and isinstance(image.get("url"), str)):
        return "of the type image_url must have an image_url with a url"
    if kind == "input_image" and not isinstance(image, str | None):
        return "of the type input_image must have a text as its image_url"
    return None


def _check_stop(value: JsonValue) -> JsonValue:
    texts = value if isinstance(value, list) else [value]
    if value is not None and not all(isinstance(one, str) for one in texts):
        raise ValueError("must be a text or a list of texts")
    return value


class ChatMessage(BaseModel):
    """A message; its tool calls are ignored."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[Any, AfterValidator(_check_content)] = None


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
    stop: Annotated[Any, AfterValidator(_check_stop)] = None
    presence_penalty: _Number | None = None
    frequency_penalty: _Number | None = None
    reasoning_effort: str | None = None
    response_format: JsonObject | None = None


class ResponsesRequest(OpenAIRequest):
    """Body of `POST /v1/responses`."""

    input: Annotated[Any, AfterValidator(_check_items)] = ""
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
