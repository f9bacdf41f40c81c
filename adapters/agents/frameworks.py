"""Agents of frameworks as agents: Pydantic AI, LangGraph and OpenAI's Agents SDK. None of them is imported here."""

import json
import sys
from collections.abc import AsyncIterator
from typing import Any, Protocol

from pydantic_core import to_jsonable_python

from sevenfold.adapters.agents.replies import as_reply
from sevenfold.contracts.agents.errors import AgentRejected
from sevenfold.contracts.agents.interface import Agent, AgentContext, AgentEvent, AgentRequest, Delta, Reply, Usage


class _Framework(Protocol):
    def __init__(self, target: Any) -> None: ...

    def run(self, request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]: ...


def as_framework_agent(target: object) -> Agent | None:
    """Returns the agent of an object that one of the frameworks has made; None for any other object."""
    for package, entrance, attribute, adapter in _FRAMEWORKS:
        is_of_package = type(target).__module__.partition(".")[0] == package
        # The last name is a plain one, which a user's own package may have.
        if is_of_package and hasattr(target, attribute) and hasattr(sys.modules[package], entrance):
            return adapter(target)
    return None


class PydanticAiAgent:
    """An `Agent` of Pydantic AI, run to its end. Its text is streamed; output of another type is `data`."""

    def __init__(self, target: Any) -> None:
        self._target = target

    async def run(self, request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
        """Streams the text of all its model requests; the reply is the last one's."""
        async with self._target.run_stream_events(build_prompt(request)) as events:
            async for event in events:
                kind = getattr(event, "event_kind", "")
                if kind == "agent_run_result":
                    result = event.result
                    usage = result.usage() if callable(result.usage) else result.usage
                    yield _with_usage(as_reply(result.output), usage.input_tokens, usage.output_tokens)
                    return
                part = getattr(event, "part", None) if kind == "part_start" else getattr(event, "delta", None)
                is_text = getattr(part, "part_kind", None) or getattr(part, "part_delta_kind", None)
                text = getattr(part, "content", None) or getattr(part, "content_delta", None)
                if is_text == "text" and isinstance(text, str) and text:
                    yield Delta(text=text)


class OpenAiSdkAgent:
    """An `Agent` of OpenAI's Agents SDK. Its text is streamed; output of another type is `data`."""

    def __init__(self, target: Any) -> None:
        self._target = target

    async def run(self, request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
        """Streams the text of all its turns; the reply is the final output. A cancelled call cancels its run."""
        result = sys.modules["agents"].Runner.run_streamed(self._target, build_prompt(request))
        try:
            async for event in result.stream_events():
                raw: Any = getattr(event, "data", None)
                if getattr(raw, "type", None) == "response.output_text.delta" and raw.delta:
                    yield Delta(text=raw.delta)
        finally:
            if not result.is_complete:
                result.cancel()
        usage = result.context_wrapper.usage
        yield _with_usage(as_reply(result.final_output), usage.input_tokens, usage.output_tokens)


# Where a graph without messages may expect the question.
_QUERY_CHANNELS = ("query", "question", "message", "input")
# Where it may leave its answer.
_ANSWER_CHANNELS = ("response", "answer", "output")


class LangGraphAgent:
    """A compiled graph of LangGraph. Messages of its models are streamed. The reply is the last message, or text in
    the channel `response`, `answer` or `output`; the rest of the final state is `data`. The thread id of a
    checkpointer is the run's id.
    """

    def __init__(self, target: Any) -> None:
        self._target = target

    async def run(self, request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
        """Runs the graph to its end."""
        config = {"configurable": {"thread_id": request.run_id}}
        state: Any = {}
        stream = self._target.astream(self._input(request), config, stream_mode=["messages", "values"])
        async for mode, found in stream:
            if mode == "values":
                state = found
            elif text := _text_of(found[0]):
                yield Delta(text=text)
        yield _reply_of(state)

    def _input(self, request: AgentRequest) -> dict[str, Any]:
        channels = getattr(self._target, "channels", {})
        if "messages" in channels:
            return {"messages": [{"role": "user", "content": build_prompt(request)}]}
        given: dict[str, Any] = {**request.context, **request.params, **request.data}
        name = next((one for one in _QUERY_CHANNELS if one in channels), None)
        return given if name is None or name in given else {**given, name: request.query or request.task}


def _text_of(message: Any) -> str:
    """Returns the text of a model's message or of a piece of one; messages of others are the run's own input."""
    if getattr(message, "type", "") not in ("ai", "AIMessageChunk"):
        return ""
    content = message.content
    if isinstance(content, str):
        return content
    texts = [part.get("text") if isinstance(part, dict) else part for part in content]
    return "".join(text for text in texts if isinstance(text, str))


def _reply_of(state: Any) -> Reply:
    if not isinstance(state, dict):
        return as_reply(to_jsonable_python(state, fallback=str))
    rest = dict(state)
    if "__interrupt__" in rest:
        raise AgentRejected("The graph waits for a person (interrupt), and nobody can answer it here.")
    messages = rest.pop("messages", None) or []
    reply = Reply()
    if messages:
        used = [getattr(message, "usage_metadata", None) or {} for message in messages]
        reply = _with_usage(
            Reply(response=_text_of(messages[-1])),
            sum(one.get("input_tokens", 0) for one in used),
            sum(one.get("output_tokens", 0) for one in used),
        )
    else:
        name = next((one for one in _ANSWER_CHANNELS if isinstance(rest.get(one), str)), None)
        if name is not None:
            reply = Reply(response=rest.pop(name))
    data = to_jsonable_python(rest, fallback=str)
    return reply.model_copy(update={"data": data}) if data else reply


def _with_usage(reply: Reply, input_tokens: int | None, output_tokens: int | None) -> Reply:
    if not (input_tokens or output_tokens):
        return reply
    usage = Usage(input_tokens=input_tokens or 0, output_tokens=output_tokens or 0)
    return reply.model_copy(update={"usage": usage})


def build_prompt(request: AgentRequest) -> str:
    """Returns the request as the message of a user: the query, or the task, and what came with it as JSON."""
    parts = {"context": request.context, "data": request.data, "params": request.params}
    given = {name: value for name, value in parts.items() if value}
    text = request.query or request.task
    return f"{text}\n\n{json.dumps(given, ensure_ascii=False)}" if given else text


# The package, a member of it and of its agents, and the adapter.
_FRAMEWORKS: tuple[tuple[str, str, str, type[_Framework]], ...] = (
    ("pydantic_ai", "Agent", "run_stream_events", PydanticAiAgent),
    ("langgraph", "__path__", "astream", LangGraphAgent),
    ("agents", "Runner", "instructions", OpenAiSdkAgent),
)
