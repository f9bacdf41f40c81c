"""The kind `openai`: a model behind one of OpenAI's APIs.

The query is the user's message, after the system prompt; the rest of the request follows it as JSON. The answer is
always streamed, so that readers get chunks and an idle server is detected.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import JsonValue

from sevenfold.adapters.agents.remote.model_request import ModelConfig
from sevenfold.adapters.agents.remote.upstream import Upstream, UpstreamResponse
from sevenfold.contracts.agents.interface import AgentContext, AgentEvent, AgentRequest, Delta, Reply


class ModelAnswer(Protocol):
    """Collects one answer. Its methods raise AgentError and BadAnswerError."""

    def read_texts(self, response: UpstreamResponse) -> AsyncIterator[str]:
        """Yields the texts of a stream, up to its end."""

    def read_whole(self, value: JsonValue) -> None:
        """Reads an answer that is not streamed."""

    def build_reply(self, *, as_json: bool) -> Reply:
        """Returns the complete reply."""


@dataclass(frozen=True)
class ModelApi:
    """How one API is asked, and how its answer is read."""

    build_body: Callable[[ModelConfig, AgentRequest], dict[str, Any]]
    new_answer: Callable[[], ModelAnswer]


class ModelAgent:
    """Calls one model."""

    def __init__(self, upstream: Upstream, config: ModelConfig, api: ModelApi) -> None:
        self._upstream = upstream
        self._config = config
        self._api = api

    async def run(self, request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
        """Streams one answer. Raises AgentError."""
        answer = self._api.new_answer()
        async with self._upstream.post(self._api.build_body(self._config, request), context) as response:
            if await response.is_streamed():
                async for text in answer.read_texts(response):
                    yield Delta(text=text)
            else:  # The server does not stream.
                answer.read_whole(await response.read_json())
            reply = answer.build_reply(as_json=self._config.json_schema is not None)
        yield reply

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._upstream.aclose()
