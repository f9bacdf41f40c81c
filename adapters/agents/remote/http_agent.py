"""The kind `http`: an agent behind its own URL.

It gets `{runId, attempt, task, query, context, data, params, metadata}` and answers with JSON, `{response,
confidence?, data?, usage?}`, or with a stream, server-sent events or JSON lines, of the events of `event_protocol`.
"""

from collections.abc import AsyncIterator

from sevenfold.adapters.agents.remote.event_protocol import parse_event
from sevenfold.adapters.agents.remote.upstream import Upstream, UpstreamResponse, parse_frame
from sevenfold.adapters.agents.replies import as_reply
from sevenfold.contracts.agent import AgentContext, AgentEvent, AgentRequest, Reply, Usage


class HttpAgent:
    """Calls one URL by the protocol that the module documents."""

    is_remote = True

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def run(self, request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
        """Makes one exchange. Raises AgentError."""
        body = request.model_dump(mode="json", by_alias=True)
        async with self._upstream.post(body, context) as answer:
            if not await answer.is_streamed():
                yield as_reply(await answer.read_json())
                return
            reply: Reply | None = None
            reports = 0
            last: AgentEvent | None = None
            async for event in _read_events(answer):
                if isinstance(event, Reply):
                    reply = event
                    break
                reports += isinstance(event, Usage)
                yield (last := event)
            if reply is None and isinstance(last, Usage) and reports == 1:
                # The only report, at the end: the answer is the streamed text. After several it may be cut off.
                reply = Reply(usage=last)
        # After the exchange, because the consumer stops at the reply, and the connection should stay reusable.
        if reply is not None:
            yield reply

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._upstream.aclose()


async def _read_events(answer: UpstreamResponse) -> AsyncIterator[AgentEvent]:
    async for frame in answer.frames():
        event = parse_event(parse_frame(frame))
        if event is not None:
            yield event
