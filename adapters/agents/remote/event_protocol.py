"""The events that an agent outside of this process sends, over HTTP or from a program, each a JSON object:

{"text": "…"}                    a piece of the response; {"chunk": "…"} is the same
{"percent": 45, "note": "…"}     progress
{"usage": {"inputTokens": 9, "outputTokens": 4}}   what the attempt has used so far
{"response": "…", …}             the complete answer, last; {"done": true} if the streamed text is the answer
{"inputRequired": [{"id", "message", "responseSchema", "expiresAt"}]}   people have to answer first, last
{"error": {"status": 503, "detail": "…"}}   a failure; its HTTP status decides whether it is retried
"""

from typing import Any

from pydantic import JsonValue, ValidationError

from sevenfold.adapters.agents.remote.error_mapping import BadAnswerError, error_for_status
from sevenfold.adapters.agents.replies import as_reply
from sevenfold.contracts.agents.interface import AgentEvent, Delta, Progress, Reply, Usage

_REPLY_FIELDS = frozenset({"response", "confidence", "data", "usage"})


def parse_event(frame: JsonValue) -> AgentEvent | None:
    """Returns the event; None for an unknown kind. Raises BadAnswerError, and AgentError for an event of an error."""
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
