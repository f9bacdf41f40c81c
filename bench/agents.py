"""The agents that the benchmark gives to Sevenfold: they take no time or a known one, so the gateway is measured."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from sevenfold.contracts.agents.errors import AgentRejected
from sevenfold.contracts.agents.interface import AgentEvent, Delta, Progress, Reply

TICKS = 10
CHUNKS_A_SECOND = 20


async def instant(request: Any) -> str:
    """Answer any request at once."""
    return "ok"


async def rejecting(request: Any) -> str:
    """Reject every request."""
    raise AgentRejected("This agent rejects everything.")


async def twenty(request: Any) -> str:
    """Answer after 20 ms."""
    await asyncio.sleep(0.02)
    return "ok"


async def fifty(request: Any) -> str:
    """Answer after 50 ms."""
    await asyncio.sleep(0.05)
    return "ok"


async def second(request: Any) -> str:
    """Answer after a second."""
    await asyncio.sleep(1)
    return "ok"


async def ticking(request: Any) -> AsyncIterator[AgentEvent]:
    """Make progress every second; the note is the moment it was made, so that whoever sees it knows how late."""
    for tick in range(1, TICKS + 1):
        await asyncio.sleep(1)
        yield Progress(percent=100 * tick / TICKS, note=repr(time.time()))
    yield Reply(response="ok")


async def speaking(request: Any) -> AsyncIterator[AgentEvent]:
    """Speak at once, and then 20 times a second; every chunk is the moment it was spoken, so that whoever reads it
    knows how late. `params` say how many `chunks`, and in which `journal` it is noted when the agent was cancelled,
    and as what (`mark`).
    """
    start = time.monotonic()
    try:
        for number in range(request.params["chunks"]):
            # Until a moment, not for a span: being late once shall not make the whole stream slower.
            await asyncio.sleep(max(0.0, start + number / CHUNKS_A_SECOND - time.monotonic()))
            yield Delta(text=f"{time.time():.6f} ")
    except (asyncio.CancelledError, GeneratorExit):  # the latter if it was just being listened to
        now = time.time()
        if journal := request.params.get("journal"):
            await asyncio.to_thread(_note, journal, f"{request.params['mark']} {now}\n")
        raise
    yield Reply()


async def telling(request: Any) -> AsyncIterator[AgentEvent]:
    """Answer at once with the current time, so that the recipient can compute the delay."""
    yield Reply(response="ok", data={"done": time.time()})


async def noting(request: Any) -> str:
    """Note in the `journal` of its `params` who was asked, when the event was sent, and when it was asked."""
    asked = time.time()
    with Path(request.params["journal"]).open("a") as lines:  # noqa: ASYNC230  (a line)
        lines.write(f"{request.run_id} {request.data['sent']} {asked}\n")
    return "ok"


async def recording(request: Any) -> str:
    """Note in the `journal` of its data when the message was sent, and when it was asked."""
    await asyncio.to_thread(_note, request.data["journal"], f"{request.data['sent']} {time.time()}\n")
    return "ok"


def _note(journal: str, line: str) -> None:
    with Path(journal).open("a") as lines:
        lines.write(line)


async def stepping(request: Any, context: Any) -> str:
    """Execute as many steps as `params.steps`, none of which takes any time."""
    for number in range(request.params["steps"]):
        await context.step("step", str, number)
    return "ok"


async def asking(request: Any, context: Any) -> str:
    """Ask, and answer what was answered."""
    await context.step("step", str, 1)
    return str(await context.ask("Go on?", id="go-on"))
