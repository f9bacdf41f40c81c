"""Makes a Reply of what agents answer with, whatever they are written in."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from sevenfold.contracts.agent import AgentEvent, Delta, Progress, Reply
from sevenfold.contracts.verdicts import AgentRejected


def as_reply(answer: object) -> Reply:
    """A str is the response. A dict with a `response` is read as a Reply, what else stands in it as `data`; any other
    dict is data. Raises AgentRejected for what is none of these.
    """
    try:
        match answer:
            case Reply():
                return answer
            case str():
                return Reply(response=answer)
            case Mapping():
                return _from_mapping(answer)
    except ValidationError as error:
        where = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
        raise AgentRejected(f"The agent's answer does not fit: {where}.") from error
    raise AgentRejected(f"The agent returned {type(answer).__name__}; it must be a str, a dict or a Reply.")


def as_event(event: object) -> AgentEvent:
    """What a stream yields: an event as it is, a str as a piece of text, anything else as the reply.

    Raises AgentRejected.
    """
    if isinstance(event, Delta | Progress | Reply):
        return event
    return Delta(text=event) if isinstance(event, str) else as_reply(event)


def join_surrogates(text: str) -> str:
    """The text with characters that were cut in two made whole (languages whose strings are UTF-16 do that).

    Raises AgentRejected for half a character without the other.
    """
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise AgentRejected("The agent's text is not valid Unicode.") from None


def _from_mapping(answer: Mapping[str, Any]) -> Reply:
    if "response" not in answer:
        return Reply(data=dict(answer))
    known = {"response", "confidence", "usage", "data"}
    fields = {key: value for key, value in answer.items() if key in known}
    extra = {key: value for key, value in answer.items() if key not in known}
    if extra:
        fields["data"] = {**(fields.get("data") or {}), **extra}
    return Reply.model_validate(fields)
