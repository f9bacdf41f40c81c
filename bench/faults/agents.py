"""The agents of the campaign. What each answers follows from what it was asked, so that clients can check it; each
call is a line in the journal, `PID ATTEMPT RUN_ID WHAT`, so that calls can be counted.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from sevenfold.contracts.agents.interface import AgentEvent, AgentRequest, Delta, Progress, Reply

JOURNAL = "FAULTS_JOURNAL"

# A little more than what Temporal's histories hold: such answers are kept in the payload directory.
LARGE = 300_000


def answer_to(text: str, *, large: bool = False) -> str:
    """What these agents answer."""
    return f"the answer to {text}{'.' * LARGE if large else ''}"


def pieces_of(text: str, count: int) -> list[str]:
    """The pieces that the streaming agent sends."""
    return [f"{text}:{number} " for number in range(1, count + 1)]


async def word(request: AgentRequest) -> str:
    """Answer a question after `params.seconds`."""
    _note(request, str(request.query))
    await _pause(request)
    return answer_to(str(request.query), large=bool(request.params.get("large")))


async def worker(request: AgentRequest) -> AsyncIterator[AgentEvent]:
    """Work on a task for `params.seconds`, telling how far it is."""
    text = str(request.params["say"])
    _note(request, text)
    for percent in (25, 50, 75):
        await _pause(request, 0.25)
        yield Progress(percent=percent, note=f"{percent} of 100")
    await _pause(request, 0.25)
    yield Reply(response=answer_to(text))


async def item(request: AgentRequest) -> str:
    """Work on one item of a job."""
    ((one,),) = [value for value in request.data.values() if isinstance(value, list)]
    _note(request, str(one))
    await _pause(request)
    return answer_to(str(one))


async def reader(request: AgentRequest) -> str:
    """Read a document."""
    document = request.data["document"]
    text = str(document["text"]) if isinstance(document, dict) else ""
    _note(request, text)
    await _pause(request)
    return answer_to(text)


async def reactor(request: AgentRequest) -> dict[str, Any]:
    """React to an event; the reply becomes the data of a derived event."""
    text = str(request.data["key"])
    _note(request, text)
    await asyncio.sleep(float(str(request.data.get("seconds", 0))))
    return {"response": answer_to(text), "data": {"key": text}}


async def speaker(request: AgentRequest) -> AsyncIterator[AgentEvent]:
    """Say `params.count` pieces, `params.pause` seconds apart."""
    text = str(request.query)
    _note(request, text)
    for piece in pieces_of(text, int(str(request.params["count"]))):
        await asyncio.sleep(float(str(request.params["pause"])))
        yield Delta(text=piece)
    yield Reply()


async def _pause(request: AgentRequest, share: float = 1) -> None:
    await asyncio.sleep(share * float(str(request.params.get("seconds", 0))))


def _note(request: AgentRequest, what: str) -> None:
    with Path(os.environ[JOURNAL]).open("a", encoding="utf-8") as journal:
        journal.write(f"{os.getpid()} {request.attempt} {request.run_id} {what}\n")
