"""OpenAI's Responses API."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from pydantic import JsonValue

from sevenfold.adapters.agents.remote.error_mapping import BadAnswerError, error_for_status, error_of_gateway
from sevenfold.adapters.agents.remote.model_agent import ModelApi
from sevenfold.adapters.agents.remote.model_request import OPTIONS, ModelConfig, build_message, parse_structured
from sevenfold.adapters.agents.remote.upstream import UpstreamResponse, parse_frame
from sevenfold.adapters.agents.replies import join_surrogates
from sevenfold.contracts.agents.errors import AgentError, AgentRejected, AgentUnavailable
from sevenfold.contracts.agents.interface import AgentRequest, Message, Reply, Usage
from sevenfold.contracts.agents.model_requests import INSTRUCTIONS, to_responses_format, to_responses_part

# What this API has under another name, or not at all.
_RENAMED = {"max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens"}
_UNKNOWN = frozenset({"seed", "stop", "presence_penalty", "frequency_penalty"})

_RATE_LIMITED, _SERVER_FAILED = "rate_limit_exceeded", "server_error"


class _Response:
    """Collects one response. Life cycle: open, then finished by its last event, which has the whole of it."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._refusal = ""
        self._usage: Usage | None = None
        self._cut_off_by: str | None = None
        self._has_tool_call = False
        self._is_void = False
        self._rest = ""
        self.is_finished = False

    async def read_texts(self, response: UpstreamResponse) -> AsyncIterator[str]:
        """Yields the text of a stream, up to its last event."""
        async for frame in response.frames(lenient=True):
            if frame.strip() == "[DONE]":
                return
            if text := self.add(parse_frame(frame)):
                yield text
            if self.is_finished:
                return

    def add(self, event: JsonValue) -> str:
        """Adds an event and returns its text; unknown events are skipped. Raises AgentError and BadAnswerError."""
        match event:
            case {"type": "response.output_text.delta", "delta": str(text)}:
                self._text.append(text)
                return text
            case {"type": "response.refusal.delta", "delta": str(refusal)}:
                self._refusal += refusal
            case {"type": "response.output_item.done", "item": {"type": "message", "status": "incomplete"}}:
                self._is_void = bool(self._text)
            case {"type": "response.output_item.added"} if self._is_void:
                # The server is another Sevenfold, whose agent failed and was retried. Sent text cannot be retracted.
                raise AgentUnavailable("The agent's server restarted its answer.")
            case {"type": "response.completed" | "response.incomplete" | "response.failed", "response": whole}:
                self.read_whole(whole)
                return self._rest
            case {"type": "error"}:
                raise _build_error(event)
            case {"error": dict() as error}:
                raise _build_error(error)
            case dict():
                pass
            case _:
                raise BadAnswerError("it is not an event of the Responses API")
        return ""

    def read_whole(self, value: JsonValue) -> None:
        """Reads the whole response. Raises AgentError and BadAnswerError."""
        if not isinstance(value, dict) or not isinstance(output := value.get("output", []), list):
            raise BadAnswerError("it is not a response of the Responses API")
        if value.get("status") == "failed" or value.get("error"):
            raise error_of_gateway(value) or _build_error(value.get("error"))
        match value.get("incomplete_details"):
            case {"reason": str(reason)}:
                self._cut_off_by = reason
        match value.get("usage"):
            case {"input_tokens": int() as read, "output_tokens": int() as written} if read >= 0 <= written:
                self._usage = Usage(input_tokens=read, output_tokens=written)
        items = [item for item in output if isinstance(item, dict)]
        self._has_tool_call = any(str(item.get("type", "")).endswith("_call") for item in items)
        whole = "".join(text for item in items for text in _texts_of(item))
        streamed = "".join(self._text)
        # A question, or an answer of data alone, follows the text that was streamed.
        self._rest = whole.removeprefix(streamed) if whole.startswith(streamed) else ""
        self._text.append(self._rest)
        self._refusal = self._refusal or "".join(_refusals_of(items))
        self.is_finished = True

    def build_reply(self, *, as_json: bool) -> Reply:
        """Returns the complete reply. Raises AgentError if there is none."""
        if self._refusal:
            raise AgentRejected(f"The model refuses: {self._refusal}")
        if not self.is_finished:
            raise AgentUnavailable("The answer broke off before response.completed.")
        if self._cut_off_by == "content_filter":
            raise AgentRejected("The model's server withheld the answer (content_filter).")
        text = join_surrogates("".join(self._text))
        if not text and self._has_tool_call:
            raise AgentRejected("The model requests a tool call, which the kind openai does not support.")
        data: dict[str, JsonValue] | None = {"finishReason": self._cut_off_by} if self._cut_off_by else None
        if as_json:
            data = parse_structured(text, is_cut_off=self._cut_off_by is not None)
        return Reply(response=text, data=data, usage=self._usage)


def _texts_of(item: Mapping[str, JsonValue]) -> list[str]:
    content = item.get("content")
    parts = content if item.get("type") == "message" and isinstance(content, list) else []
    return [str(part["text"]) for part in parts if isinstance(part, dict) and part.get("type") == "output_text"]


def _refusals_of(items: list[dict[str, JsonValue]]) -> list[str]:
    parts = [part for item in items if isinstance(content := item.get("content"), list) for part in content]
    return [
        str(part.get("refusal", "")) for part in parts if isinstance(part, dict) and part.get("type") == "refusal"
    ]


def _build_error(error: Any) -> AgentError:
    match error:
        case {"code": str(code)} if code == _RATE_LIMITED:
            return error_for_status(429)
        case {"code": str(code), "message": str(message)} if code != _SERVER_FAILED:
            return error_for_status(400, message)
    return error_for_status(500)


def _build_body(config: ModelConfig, request: AgentRequest) -> dict[str, Any]:
    given = {name: value for name, value in request.params.items() if name in OPTIONS - _UNKNOWN}
    body: dict[str, Any] = {
        "model": config.model,
        "input": _build_input(request),
        "stream": True,
        # Otherwise the server keeps what was asked and answered for weeks.
        "store": False,
        **config.options,
    }
    own = request.context.get(INSTRUCTIONS) if request.messages else None
    if instructions := [one for one in (config.system_prompt, own) if isinstance(one, str) and one]:
        body["instructions"] = "\n\n".join(instructions)
    for name, value in given.items():
        if name == "reasoning_effort":
            body["reasoning"] = {"effort": value}
        elif name == "response_format":
            body["text"] = {"format": to_responses_format(value)}
        else:
            body[_RENAMED.get(name, name)] = value
    if config.json_schema is not None:
        schema = {"type": "json_schema", "name": "answer", "schema": config.json_schema, "strict": True}
        body["text"] = {"format": schema}
    return body


def _build_input(request: AgentRequest) -> str | list[dict[str, Any]]:
    """Returns the conversation, or the user's message."""
    if not request.messages:
        return build_message(request)
    # The API has no role `tool`, and a tool's result needs the id of its call, which a message does not have.
    return [
        {"role": "user" if one.role == "tool" else one.role, "content": _to_parts(one)} for one in request.messages
    ]


def _to_parts(message: Message) -> str | list[dict[str, Any]]:
    """Returns a message's content as this API has it."""
    if isinstance(message.content, str):
        return message.content
    kind = "output_text" if message.role == "assistant" else "input_text"
    return [to_responses_part(part, kind) for part in message.content]


RESPONSES = ModelApi(_build_body, _Response)
