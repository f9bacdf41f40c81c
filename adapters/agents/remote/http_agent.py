"""The kind `http`: an agent behind its own URL.

It gets `{runId, attempt, turn, task, query, context, data, params, metadata, steps, responses, stepsUrl}` and answers
with JSON, `{response, confidence?, data?, usage?}` or `{inputRequired}`, or with a stream, server-sent events or JSON
lines, of the events of `event_protocol`.
"""

from collections.abc import AsyncIterator

from pydantic import JsonValue

from sevenfold.adapters.agents.remote.event_protocol import parse_event
from sevenfold.adapters.agents.remote.remote_questions import ask_all, read_questions
from sevenfold.adapters.agents.remote.upstream import Upstream, UpstreamResponse, parse_frame
from sevenfold.adapters.agents.replies import as_reply
from sevenfold.contracts.agents.interface import AgentContext, AgentEvent, AgentRequest, Reply, Usage


class HttpAgent:
    """Calls one URL by the protocol that the module documents."""

    is_remote = True

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def run(self, request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
        """Makes one exchange. Raises AgentError."""
        body = request.model_dump(mode="json", by_alias=True, exclude=None if request.messages else {"messages"})
        if context.durable is not None:
            body |= context.durable.remote_state
        questions: list[JsonValue] | None = None
        async with self._upstream.post(body, context) as answer:
            reply: Reply | None = None
            reports = 0
            last: AgentEvent | None = None
            async for event in _read_events(answer):
                if isinstance(event, list):
                    questions = event
                    break
                if isinstance(event, Reply):
                    reply = event
                    break
                reports += isinstance(event, Usage)
                yield (last := event)
            if reply is None and isinstance(last, Usage) and reports == 1:
                # The only report, at the end: the answer is the streamed text. After several it may be cut off.
                reply = Reply(usage=last)
        if questions is not None:
            await ask_all(questions, context)
        # After the exchange, because the consumer stops at the reply, and the connection should stay reusable.
        if reply is not None:
            yield reply

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._upstream.aclose()


async def _read_events(answer: UpstreamResponse) -> AsyncIterator[AgentEvent | list[JsonValue]]:
    if not await answer.is_streamed():
        found = await answer.read_json()
        yield read_questions(found) or as_reply(found)
        return
    async for frame in answer.frames():
        parsed = parse_frame(frame)
        event = read_questions(parsed) or parse_event(parsed)
        if event is not None:
            yield event
