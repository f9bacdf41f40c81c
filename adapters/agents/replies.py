"""Converts the answers of agents to replies and events."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from sevenfold.contracts.agents.errors import AgentRejected
from sevenfold.contracts.agents.interface import AgentEvent, Delta, Progress, Reply, Usage


def as_reply(answer: object) -> Reply:
    """Converts an agent's answer. A str is the response. A dict, pydantic model or dataclass with a `response` is a
    Reply whose unknown keys go to `data`; any other one is `data`. Raises AgentRejected for other types.
    """
    try:
        match answer:
            case Reply():
                return answer
            case str():
                return Reply(response=answer)
            case Mapping():
                return _from_mapping(answer)
            case BaseModel():
                return _from_mapping(answer.model_dump(mode="json"))
            case _ if is_dataclass(answer) and not isinstance(answer, type):
                return _from_mapping(to_jsonable_python(answer))
    except ValidationError as error:
        where = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
        raise AgentRejected(f"The agent's answer has invalid fields: {where}.") from error
    except PydanticSerializationError as error:
        raise AgentRejected("The agent's answer cannot be encoded as JSON.") from error
    kind = type(answer).__name__
    raise AgentRejected(f"The agent returned {kind}; it must be a str, a dict, a model, a dataclass or a Reply.")


def as_event(event: object) -> AgentEvent:
    """Converts what a stream yields: an event stays, a str becomes a Delta, anything else the Reply. Raises
    AgentRejected.
    """
    if isinstance(event, Usage):
        return as_usage(event)
    if isinstance(event, Delta | Progress | Reply):
        return event
    return Delta(text=event) if isinstance(event, str) else as_reply(event)


def as_usage(usage: Usage) -> Usage:
    """Returns the usage, validated: an agent may have built it without. Raises AgentRejected."""
    try:
        return Usage.model_validate(dict(usage))
    except ValidationError:
        raise AgentRejected("The agent reported a usage that is not a number of tokens, 0 or more.") from None


def join_surrogates(text: str) -> str:
    """Joins characters that were split into surrogates, as in languages with UTF-16 strings. Raises AgentRejected for
    half a character without its other half.
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
