"""Asks a person on behalf of a durable agent.

The standard library alone, as step_runner.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_EXPIRY = timedelta(days=7)

# What `default` is if the agent gives none: then Declined and Expired are raised.
NO_DEFAULT = object()


class Declined(Exception):  # noqa: N818
    """A person has declined the question, or cancelled it. `question_id`: which."""

    def __init__(self, question_id: str) -> None:
        super().__init__(f"The question {question_id} was declined.")
        self.question_id = question_id


class Expired(Exception):  # noqa: N818
    """Nobody has answered the question in time. `question_id`: which."""

    def __init__(self, question_id: str) -> None:
        super().__init__(f"The question {question_id} has expired.")
        self.question_id = question_id


class Suspended(BaseException):
    """The call ends here: a person has to answer first, or it has ended already. Not an Exception, so that agents do
    not take it for a failure.
    """


@dataclass(frozen=True)
class Ask:
    """A question as an agent asks it. `schema`: JSON Schema of the answer, by default true or false. `id` identifies
    it within its run, by default its text and schema do.
    """

    message: str
    schema: Any = None
    expires_in: float | timedelta | None = None
    id: str | None = None
    default: Any = NO_DEFAULT

    def describe(self) -> dict[str, Any]:
        """Returns the fields of the question; times in seconds."""
        expiry = DEFAULT_EXPIRY if self.expires_in is None else self.expires_in
        seconds = expiry.total_seconds() if isinstance(expiry, timedelta) else expiry
        return {"id": self.id, "message": self.message, "schema": self.schema, "expires_in": seconds}

    def read(self, answer: dict[str, Any]) -> Any:
        """Returns the content of an answer, or the default. Raises Declined and Expired."""
        if answer["action"] == "accept":
            return answer.get("content")
        if self.default is not NO_DEFAULT:
            return self.default
        raise (Expired if answer["action"] == "expire" else Declined)(answer["id"])


async def ask(call: Any, question: Ask) -> Any:
    """Asks. `call` is a `DurableCall`."""
    return question.read(await call.ask(_describe(call, question, is_main=call.is_main_task())))


def ask_in_thread(call: Any, on_loop: Callable[[Any], Any], question: Ask, *, is_main: bool) -> Any:
    """The same for an agent in a thread. `on_loop` executes a coroutine on the event loop, and waits."""
    return question.read(on_loop(call.ask(_describe(call, question, is_main=is_main))))


def _describe(call: Any, question: Ask, *, is_main: bool) -> dict[str, Any]:
    return {**question.describe(), "is_main": is_main, "in_step": call.in_step.get()}
