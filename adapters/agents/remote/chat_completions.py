"""OpenAI's `/chat/completions`, as any server has it."""

from collections.abc import AsyncIterator
from typing import Any

from pydantic import JsonValue

from sevenfold.adapters.agents.remote.error_mapping import BadAnswerError, error_for_status, error_of_gateway
from sevenfold.adapters.agents.remote.model_agent import ModelApi
from sevenfold.adapters.agents.remote.model_request import OPTIONS, ModelConfig, build_conversation, parse_structured
from sevenfold.adapters.agents.remote.upstream import UpstreamResponse, parse_frame
from sevenfold.adapters.agents.replies import join_surrogates
from sevenfold.contracts.agents.errors import AgentError, AgentRejected, AgentUnavailable
from sevenfold.contracts.agents.interface import AgentRequest, Reply, Usage
from sevenfold.contracts.payload import JsonObject

_LAST_FRAME = "[DONE]"


class _Completion:
    """Collects one choice. Errors after its finish reason are ignored, because the answer is complete and paid
    for.
    """

    def __init__(self) -> None:
        self._text: list[str] = []
        self._refusal = ""
        self._finish_reason: str | None = None
        self._usage: Usage | None = None
        # Content of an unknown form was present, so an answer without text is not an empty one.
        self._has_unknown_content = False

    async def read_texts(self, response: UpstreamResponse) -> AsyncIterator[str]:
        """Yields the text of a stream. A connection that breaks after the finish reason does no harm."""
        try:
            async for frame in response.frames(lenient=True):
                if frame.strip() == _LAST_FRAME:
                    return
                if text := self.add_frame(frame):
                    yield text
        except Exception:
            if not self.is_finished:
                raise

    def read_whole(self, value: JsonValue) -> None:
        """Reads a completion that is not streamed. Raises AgentError and BadAnswerError."""
        self.add(value)

    @property
    def is_finished(self) -> bool:
        """Whether the server has sent a finish reason."""
        return self._finish_reason is not None

    def add_frame(self, frame: str) -> str:
        """Adds a frame of a stream and returns its text; unknown frames are skipped."""
        try:
            return self.add(parse_frame(frame))
        except (BadAnswerError, AgentError):
            if not self.is_finished:
                raise
            return ""

    def add(self, chunk: JsonValue) -> str:
        """Adds a chunk of a stream, or a whole completion, and returns its text. Raises AgentError and
        BadAnswerError.
        """
        if not isinstance(chunk, dict):
            raise BadAnswerError("it is not a chat completion")
        if chunk.get("error"):
            raise error_of_gateway(chunk) or _build_error(chunk["error"])
        self._record_usage(chunk.get("usage"))
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            return ""  # Such as a frame with only the usage, or of an unknown kind.
        own_choices = [one for one in choices if isinstance(one, dict) and one.get("index") in (None, 0)]
        return "".join(map(self._read_choice, own_choices[:1]))

    def _record_usage(self, usage: JsonValue) -> None:
        match usage:
            case {"prompt_tokens": int() as prompt_tokens, "completion_tokens": int() as completion_tokens} if (
                prompt_tokens >= 0 <= completion_tokens
            ):
                self._usage = Usage(input_tokens=prompt_tokens, output_tokens=completion_tokens)

    def _read_choice(self, choice: dict[str, JsonValue]) -> str:
        finish = choice.get("finish_reason")
        if isinstance(finish, str) and finish and self._finish_reason is None:
            self._finish_reason = finish
        text = ""
        # Streamed as `delta`, complete as `message`; some servers swap them, or send `text`.
        for part in (choice.get("delta"), choice.get("message"), choice):
            if isinstance(part, dict) and not text:
                text = self._read_part(part)
        if text:
            self._text.append(text)
        return text

    def _read_part(self, part: dict[str, JsonValue]) -> str:
        refusal = part.get("refusal")
        if isinstance(refusal, str):
            self._refusal += refusal
        content = part.get("content", part.get("text"))
        match content:
            case str():
                return content
            case list():
                return "".join(map(self._read_content_part, content))
            case None:
                return ""
        self._has_unknown_content = True
        return ""

    def _read_content_part(self, part: JsonValue) -> str:
        """Returns the text of one content part: `{"type": "text", "text": …}`, or a string."""
        match part:
            case str():
                return part
            case {"type": "refusal", "refusal": str(refusal)}:
                self._refusal += refusal
            case {"type": "thinking" | "reasoning"}:
                pass  # The model's reasoning is not part of its answer.
            case {"text": str(text)} | {"text": {"value": str(text)}}:
                return text
            case _:
                self._has_unknown_content = True
        return ""

    def build_reply(self, *, as_json: bool) -> Reply:
        """Returns the complete reply. Raises AgentError if there is none."""
        if self._refusal:
            raise AgentRejected(f"The model refuses: {self._refusal}")
        match self._finish_reason:
            case None:
                raise AgentUnavailable("The answer broke off before its finish_reason.")
            case "content_filter":
                raise AgentRejected("The model's server withheld the answer (content_filter).")
            case "tool_calls" | "function_call":
                raise AgentRejected("The model requests a tool call, which the kind openai does not support.")
        text = join_surrogates("".join(self._text))
        if not text and self._has_unknown_content:
            raise AgentRejected("The model's answer has no text, only content of an unsupported kind.")
        data: JsonObject | None = {"finishReason": self._finish_reason} if self._finish_reason != "stop" else None
        if as_json:
            data = parse_structured(text, is_cut_off=self._finish_reason == "length")
        return Reply(response=text, data=data, usage=self._usage)


def _build_body(config: ModelConfig, request: AgentRequest) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": config.model,
        "messages": build_conversation(config, request),
        "stream": True,
        "stream_options": {"include_usage": True},
        **config.options,
        **{name: value for name, value in request.params.items() if name in OPTIONS},
    }
    if config.json_schema is not None:
        schema = {"name": "answer", "schema": config.json_schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _build_error(error: Any) -> Exception:
    """Returns the AgentError of an error within a stream; `code` is the status if it is a number."""
    match error:
        case {"code": int() as status, "message": str() as message} if 400 <= status < 600:
            return error_for_status(status, message)
        case {"type": "invalid_request_error", "message": str() as message}:
            return error_for_status(400, message)
        case {"type": str() as kind} if "rate_limit" in kind:
            return error_for_status(429)
    return error_for_status(500)


CHAT_COMPLETIONS = ModelApi(_build_body, _Completion)
