"""What requests to language models share: clients of the gateway's `/v1` send it, `openai` agents hand it on."""

from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

# The member of a request's context with the client's instructions.
INSTRUCTIONS = "instructions"

# What happens to a run whose client disconnects: `cancel` or `continue`.
ON_DISCONNECT_HEADER = "x-sevenfold-on-disconnect"

# Params of a request, by the names that Chat Completions has for them: `openai` agents hand them on to the server of
# the model, and clients of the gateway's own `/v1` set them.
MODEL_OPTIONS = (
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "reasoning_effort",
    "response_format",
)


def without_model_options(params: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Returns an agent's own params: a client of `/v1` sends a model's options to any agent."""
    return {name: value for name, value in params.items() if name not in MODEL_OPTIONS}


def to_responses_part(part: Mapping[str, JsonValue], text_type: str) -> dict[str, Any]:
    """Converts a part of a Chat Completions message into one of the Responses API. `text_type`: `input_text` or
    `output_text`.
    """
    match part:
        case {"text": str(text)}:
            return {"type": text_type, "text": text}
        case {"image_url": {"url": str(url), **more}}:
            detail = {"detail": more["detail"]} if more.get("detail") else {}
            return {"type": "input_image", "image_url": url, **detail}
    return dict(part)


def to_responses_format(response_format: JsonValue) -> JsonValue:
    """Converts the `response_format` of Chat Completions into the `text.format` of the Responses API."""
    match response_format:
        case {"type": "json_schema", "json_schema": dict(schema)}:
            return {"type": "json_schema", **schema}
    return response_format
