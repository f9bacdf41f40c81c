"""The kind `http`: an agent behind its own URL.

It gets `{runId, attempt, task, query, context, data, params, metadata}` and answers with JSON, `{response,
confidence?, data?, usage?}`, or with a stream, server-sent events or JSON lines, of these:

    {"text": "…"}                    a piece of the response; {"chunk": "…"} is the same
    {"percent": 45, "note": "…"}     progress
    {"usage": {"inputTokens": 9, "outputTokens": 4}}   what the attempt has used so far
    {"response": "…", …}             the complete answer, last; {"done": true} if the streamed text is the answer
    {"error": {"status": 503, "detail": "…"}}   a failure; its HTTP status decides whether it is retried
"""

from collections.abc import AsyncIterator
from typing import Any

from pydantic import JsonValue, ValidationError

from sevenfold.adapters.agents.remote.error_mapping import BadAnswerError, error_for_status
from sevenfold.adapters.agents.remote.upstream import Upstream, UpstreamResponse, parse_frame
from sevenfold.adapters.agents.replies import as_reply
from sevenfold.contracts.agent import AgentContext, AgentEvent, AgentRequest, Delta, Progress, Reply, Usage

_REPLY_FIELDS = frozenset({"response", "confidence", "data", "usage"})


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
        event = _parse_event(parse_frame(frame))
        if event is not None:
            yield event


def _parse_event(frame: JsonValue) -> AgentEvent | None:
    """Returns the event of a frame; None for an unknown kind."""
    if not isinstance(frame, dict):
        raise BadAnswerError("a frame is not an object")
    match frame:
        case {"error": error} if error:
            raise _build_error(error)
        case {"done": True}:
            return _build_reply({key: value for key, value in frame.items() if key in _REPLY_FIELDS})
        case {"text": str() as text} | {"chunk": str() as text}:
            return Delta(text=text)
        case {"percent": percent, **more}:
            try:
                return Progress.model_validate({"percent": percent, "note": more.get("note", "")})
            except ValidationError:
                raise BadAnswerError("`percent` must be from 0 to 100, and `note` a string") from None
        case {"usage": usage} if not _REPLY_FIELDS & (frame.keys() - {"usage"}):
            try:
                return Usage.model_validate(usage)
            except ValidationError:
                raise BadAnswerError("`usage` must have inputTokens and outputTokens, each 0 or more") from None
        case dict() if _REPLY_FIELDS & frame.keys():
            return _build_reply(frame)
    return None


def _build_reply(fields: dict[str, JsonValue]) -> Reply:
    # Without its own response, the reply's response is the streamed text.
    return as_reply({"response": "", **fields})


def _build_error(error: Any) -> Exception:
    match error:
        case {"status": int() as status, **more}:
            pause = more.get("retryAfter")
            seconds = float(pause) if isinstance(pause, int | float) and 0 <= pause <= 86_400 else None
            return error_for_status(status, str(more.get("detail", "")), seconds)
        case {"detail": str() as detail} | str(detail):
            return error_for_status(500, detail)
    return error_for_status(500)
