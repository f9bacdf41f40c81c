"""What both APIs of the kind `openai` make of a request, and of an answer that is to be JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sevenfold.adapters.agents.remote.error_mapping import BadAnswerError
from sevenfold.adapters.agents.remote.upstream import parse_value
from sevenfold.contracts.agents.errors import AgentRejected, AgentUnavailable
from sevenfold.contracts.agents.interface import AgentRequest
from sevenfold.contracts.agents.model_requests import INSTRUCTIONS, MODEL_OPTIONS, without_model_options
from sevenfold.contracts.payload import JsonObject

# Those of a request's `params` that are options of the model's server; the others go into the message.
OPTIONS = frozenset(MODEL_OPTIONS)


@dataclass(frozen=True)
class ModelConfig:
    """Options of every request. `json_schema`: the answer is JSON of that schema. `options` are the server's, such as
    `temperature`.
    """

    model: str
    system_prompt: str | None = None
    json_schema: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def build_conversation(config: ModelConfig, request: AgentRequest) -> list[dict[str, Any]]:
    """Returns the messages: the system prompt, then the client's conversation, or the query as the user's message.
    The client's instructions follow the system prompt.
    """
    system = [config.system_prompt] if config.system_prompt else []
    if not request.messages:
        return [*({"role": "system", "content": one} for one in system), _user_message(request)]
    instructions = request.context.get(INSTRUCTIONS)
    if isinstance(instructions, str):
        system.append(instructions)
    conversation = [one.model_dump(mode="json") for one in request.messages]
    return [*({"role": "system", "content": one} for one in system), *conversation]


def _user_message(request: AgentRequest) -> dict[str, Any]:
    return {"role": "user", "content": build_message(request)}


def build_message(request: AgentRequest) -> str:
    """Returns the user's message: the query, or the task, and the rest of the request as JSON."""
    parts = [request.query if request.query is not None else f"Task: {request.task}"]
    params = without_model_options(request.params)
    for title, value in (("Context", request.context), ("Data", request.data), ("Parameters", params)):
        if value:
            parts.append(f"{title}:\n{json.dumps(value, ensure_ascii=False)}")
    return "\n\n".join(parts)


def parse_structured(text: str, *, is_cut_off: bool) -> JsonObject:
    """Returns the answer of a model with a `json_schema`. Raises AgentError."""
    if is_cut_off:
        raise AgentRejected("The answer was cut off before its JSON was complete: raise max_tokens.")
    try:
        value = parse_value(text)
    except BadAnswerError:
        raise AgentUnavailable("The model's answer is not the JSON that json_schema requires.") from None
    return value if isinstance(value, dict) else {"value": value}
