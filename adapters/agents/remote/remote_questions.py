"""Questions that an agent behind HTTP asks: `{"inputRequired": [{id, message, responseSchema, expiresAt}]}`."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from pydantic import JsonValue

from sevenfold.contracts.agents.asking import DEFAULT_EXPIRY
from sevenfold.contracts.agents.errors import AgentRejected
from sevenfold.contracts.agents.interface import AgentContext

_KEY = "inputRequired"


def read_questions(answer: JsonValue) -> list[JsonValue] | None:
    """Returns the questions of an answer; None if it asks nothing. Raises AgentRejected."""
    if not isinstance(answer, dict) or _KEY not in answer:
        return None
    questions = answer[_KEY]
    if not isinstance(questions, list) or not questions:
        raise AgentRejected(f"The agent's {_KEY} is not a list of questions.")
    return questions


async def ask_all(questions: list[JsonValue], context: AgentContext) -> None:
    """Ends the call, until people have answered. Raises AgentRejected for what is no question, and if all have been
    answered before.
    """
    if context.durable is None:
        raise AgentRejected("The agent asks, but this call belongs to no run.")
    await asyncio.gather(*(context.durable.ask(_to_question(one)) for one in questions))
    raise AgentRejected("The agent asks again what has been answered: the answers are in `responses`.")


def _to_question(asked: Any) -> dict[str, Any]:
    if not isinstance(asked, dict) or not isinstance(asked.get("id"), str):
        raise AgentRejected("A question of the agent has no id, which its answer needs.")
    return {
        "id": asked["id"],
        "message": asked.get("message"),
        "schema": asked.get("responseSchema"),
        "expires_in": _to_seconds(asked.get("expiresAt")),
        "is_main": False,
        "in_step": False,
    }


def _to_seconds(expires_at: Any) -> float:
    if expires_at is None:
        return DEFAULT_EXPIRY.total_seconds()
    try:
        return (datetime.fromisoformat(expires_at) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        raise AgentRejected("The expiresAt of a question is not a time with its offset.") from None
