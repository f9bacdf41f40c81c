"""The kind `http`: an agent behind an HTTP address of its own.

It gets `{runId, attempt, task, query, context, data, params, metadata}` and answers with JSON, `{response,
confidence?, data?, usage?}`, or with a stream, server-sent events or JSON lines, of these:

    {"text": "…"}                    a piece of the response; {"chunk": "…"} is the same
    {"percent": 45, "note": "…"}     how far it is
    {"response": "…", …}             the whole answer, the last; {"done": true} if it is what was streamed
    {"error": {"status": 503, "detail": "…"}}   it failed; the status says as in HTTP whether to try again
"""

from collections.abc import AsyncIterator
from typing import Any

from pydantic import JsonValue, ValidationError

from adapters.agents.http_verdicts import BadAnswerError, status_error
from adapters.agents.replies import as_reply
from adapters.agents.upstream import Upstream, UpstreamAnswer, parsed_frame
from contracts.agent import AgentContext, AgentEvent, AgentRequest, Delta, Progress, Reply

_REPLY_FIELDS = frozenset({"response", "confidence", "data", "usage"})


class HttpAgent:
    """Asks one address. See the module for what is said."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def run(self, request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
        """One exchange. Raises AgentErrors."""
        body = request.model_dump(mode="json", by_alias=True)
        async with self._upstream.asked(body, context) as answer:
            if not await answer.streamed():
                yield as_reply(await answer.whole())
                return
            reply: Reply | None = None
            async for event in _events(answer):
                if isinstance(event, Reply):
                    reply = event
                    break
                yield event
        # after the exchange: whoever has the reply listens no more, and the connection is to be kept
        if reply is not None:
            yield reply

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._upstream.aclose()


async def _events(answer: UpstreamAnswer) -> AsyncIterator[AgentEvent]:
    async for frame in answer.frames():
        event = _event(parsed_frame(frame))
        if event is not None:
            yield event


def _event(said: JsonValue) -> AgentEvent | None:
    """The event that a frame is; None for one of a kind that is not known yet."""
    if not isinstance(said, dict):
        raise BadAnswerError("a frame is not an object")
    match said:
        case {"error": error} if error:
            raise _failure(error)
        case {"done": True}:
            return _reply({key: value for key, value in said.items() if key in _REPLY_FIELDS})
        case {"text": str() as text} | {"chunk": str() as text}:
            return Delta(text=text)
        case {"percent": percent, **more}:
            try:
                return Progress.model_validate({"percent": percent, "note": more.get("note", "")})
            except ValidationError:
                raise BadAnswerError("`percent` must be from 0 to 100, and `note` a text") from None
        case dict() if _REPLY_FIELDS & said.keys():
            return _reply(said)
    return None


def _reply(said: dict[str, JsonValue]) -> Reply:
    # without a response of its own the reply's is what was streamed
    return as_reply({"response": "", **said})


def _failure(error: Any) -> Exception:
    match error:
        case {"status": int() as status, **more}:
            pause = more.get("retryAfter")
            seconds = float(pause) if isinstance(pause, int | float) and 0 <= pause <= 86_400 else None
            return status_error(status, str(more.get("detail", "")), seconds)
        case {"detail": str() as detail} | str(detail):
            return status_error(500, detail)
    return status_error(500)
