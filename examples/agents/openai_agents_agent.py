"""An agent of OpenAI's Agents SDK behind Sevenfold: offline unless CONCIERGE_MODEL names a model (gpt-5-mini, …)."""

import os
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, Model, ModelResponse, Usage, set_tracing_disabled
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
    ResponseUsage,
)
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

ANSWER = "Your table is booked."


class OfflineModel(Model):
    """Answers everything with the same sentence, word by word."""

    async def get_response(self, *_: Any, **__: Any) -> ModelResponse:
        """Not used: Sevenfold streams."""
        return ModelResponse(output=[_message()], usage=Usage(), response_id=None)

    async def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        """The events that OpenAI's Responses API would send."""
        for number, word in enumerate(ANSWER.split(" ")):
            yield ResponseTextDeltaEvent(
                content_index=0,
                delta=word if number == 0 else f" {word}",
                item_id="msg_1",
                logprobs=[],
                output_index=0,
                sequence_number=number,
                type="response.output_text.delta",
            )
        usage = ResponseUsage(
            input_tokens=7,
            input_tokens_details=InputTokensDetails(cached_tokens=0, cache_write_tokens=0),
            output_tokens=4,
            output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
            total_tokens=11,
        )
        response = Response(
            id="resp_1",
            created_at=0,
            model="offline",
            object="response",
            output=[_message()],
            parallel_tool_calls=False,
            tool_choice="auto",
            tools=[],
            usage=usage,
        )
        yield ResponseCompletedEvent(response=response, sequence_number=9, type="response.completed")


def _message() -> ResponseOutputMessage:
    text = ResponseOutputText(annotations=[], text=ANSWER, type="output_text")
    return ResponseOutputMessage(id="msg_1", content=[text], role="assistant", status="completed", type="message")


set_tracing_disabled(not os.environ.get("CONCIERGE_MODEL"))

agent = Agent(
    name="concierge",
    instructions="You book tables.",
    model=os.environ.get("CONCIERGE_MODEL") or OfflineModel(),
)
