"""Agents that the tests configure by `target = "tests.support.agents:…"`, as a user would his own."""

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from sevenfold.contracts.agents.errors import AgentRateLimited, AgentRejected, AgentUnavailable
from sevenfold.contracts.agents.interface import AgentContext, AgentEvent, AgentRequest, Delta, Progress, Reply, Usage

# Calls by run id, for tests that share the worker's process.
CALLS: Counter[str] = Counter()
CLEANED_UP: set[str] = set()


def note(request: AgentRequest, what: str) -> None:
    """Leaves a mark for tests whose worker is another process: a line in the file that `params.journal` names."""
    CALLS[request.run_id] += 1
    journal = request.params.get("journal")
    if isinstance(journal, str):
        with Path(journal).open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {request.attempt} {what}\n")


async def echo(request: AgentRequest) -> dict[str, object]:
    """Answers at once with what it was asked."""
    note(request, "called")
    return {"response": request.query or "", "confidence": 0.5, "context": request.context}


async def listener(request: AgentRequest) -> dict[str, object]:
    """Answers with its whole request, as data."""
    return {"response": request.query or "", "data": request.model_dump(mode="json")}


async def mute(request: AgentRequest) -> dict[str, object]:
    """Answers with data alone."""
    return {"only": "data"}


async def careful(request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
    """Takes `params.seconds`, reports its progress, and records its cleanup when it is cancelled."""
    note(request, "started")
    seconds = float(str(request.params.get("seconds", 1)))
    try:
        for step in range(10):
            yield Delta(text=f"{step} ")
            yield Progress(percent=step * 10, note=f"step {step}")
            await asyncio.sleep(seconds / 10)
    except asyncio.CancelledError:
        await asyncio.sleep(0.05)  # a cleanup that takes a moment
        CLEANED_UP.add(request.run_id)
        note(request, "cleaned up")
        raise
    note(request, "finished")
    yield Reply(confidence=1.0)


def stubborn(request: AgentRequest, context: AgentContext) -> str:
    """A plain function that blocks its thread for `params.seconds`, looking at the cancellation now and then."""
    note(request, "started")
    until = time.monotonic() + float(str(request.params.get("seconds", 1)))
    while time.monotonic() < until:
        if context.cancelled.wait(0.02):
            CLEANED_UP.add(request.run_id)
            return "stopped"
    return f"thread {threading.current_thread().name}"


async def flaky(request: AgentRequest) -> str:
    """Fails the first two attempts with an exception of its own, then works."""
    note(request, "called")
    if request.attempt <= 2:
        raise ConnectionResetError("internal-host:9999 closed the connection")
    return f"attempt {request.attempt}"


async def hopeless(request: AgentRequest) -> str:
    """Refuses for good."""
    note(request, "called")
    raise AgentRejected("This agent never does that.")


async def picky(request: AgentRequest) -> str:
    """Refuses because of a field of the request."""
    raise AgentRejected("must be a positive number", pointer="/params/size")


async def down(request: AgentRequest) -> str:
    """Is never there."""
    note(request, "called")
    raise AgentUnavailable("Nobody is home.")


async def mendable(request: AgentRequest) -> str:
    """Is away for as long as the file that `params.broken` names is there."""
    note(request, "called")
    broken = request.params.get("broken")
    if isinstance(broken, str) and Path(broken).exists():
        raise AgentUnavailable("It is broken.")
    return "well"


async def limited(request: AgentRequest) -> str:
    """Asks for a pause of half a second, once."""
    note(request, "called")
    if request.attempt == 1:
        raise AgentRateLimited("Too many.", retry_after=0.5)
    return "after the pause"


async def silent(request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
    """Ends without a reply."""
    note(request, "called")
    yield Delta(text="only half")


async def garbled(request: AgentRequest) -> dict[str, object]:
    """Answers with what JSON cannot hold."""
    note(request, "called")
    return {"number": float("nan")} if request.query == "number" else {"text": "\ud800"}


async def item(request: AgentRequest) -> dict[str, object]:
    """Processes one item of a job; the item's text selects the behaviour."""
    ((one,),) = [value for value in request.data.values() if isinstance(value, list)]
    note(request, f"item {one}")
    match one:
        case "bad":
            raise AgentRejected("This item is bad.")
        case "flaky" if request.attempt == 1:
            raise ConnectionResetError("for a moment")
        case str() if one.startswith("slow"):
            await asyncio.sleep(0.1)
    others = {name: value for name, value in request.data.items() if not isinstance(value, list)}
    return {"item": one, **others}


async def teller(request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
    """Streams `params.say` piece by piece, `params.pause` seconds apart; at most 25 until the file `params.hold`
    exists.
    """
    note(request, "started")
    pieces = request.params["say"]
    assert isinstance(pieces, list)
    hold = request.params.get("hold")
    for number, piece in enumerate(pieces):
        await asyncio.sleep(float(str(request.params.get("pause", 0))))
        while number == 25 and isinstance(hold, str) and not Path(hold).exists():
            await asyncio.sleep(0.02)
        yield Delta(text=str(piece))
    yield Reply(confidence=1.0)


async def torn(request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
    """Cuts its characters in two, as an agent in JavaScript may."""
    for piece in ("a\ud83d", "\ude00b", "\ud83d\ude00", "ü\ud83d", "\ude00"):
        yield Delta(text=piece)
    if request.params.get("unfinished"):
        yield Delta(text="\ud83d")
    yield Reply()


async def whole_at_last(request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
    """Streams a part and fails; the second attempt replies without streaming."""
    if request.attempt == 1:
        yield Delta(text="a part that is void")
        await asyncio.sleep(float(str(request.params.get("pause", 0))))
        raise ConnectionResetError("in the middle")
    yield Reply(response="the whole")


async def torn_mute(request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
    """Streams a part and fails; the second attempt answers with data alone."""
    if request.attempt == 1:
        yield Delta(text="a part that is void")
        raise ConnectionResetError("in the middle")
    yield Reply(data={"only": "data"})


async def empty(request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
    """Answers with nothing."""
    yield Reply()


async def held(request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
    """Streams a part and fails; the second attempt goes on once the file `params.hold` exists."""
    yield Delta(text="begun ")
    await asyncio.sleep(0.5)
    if request.attempt == 1:
        raise ConnectionResetError("in the middle")
    while not Path(str(request.params["hold"])).exists():
        await asyncio.sleep(0.05)
    yield Delta(text="ended")
    yield Reply()


async def torn_once(request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
    """Streams a part and fails, unless the file `params.journal` exists."""
    yield Delta(text="a part " if not Path(str(request.params["journal"])).exists() else "the whole")
    if not Path(str(request.params["journal"])).exists():
        note(request, "torn")
        raise ConnectionResetError("in the middle")
    yield Reply()


async def deriver(request: AgentRequest) -> dict[str, object]:
    """Derives the events in `params.events`."""
    note(request, "called")
    return {"response": "derived", "data": {"events": request.params.get("events")}}


# What `witness` saw, in order: the subscription's `params.who`, the event's data, and when.
SEEN: list[tuple[str, dict[str, object], float, float]] = []


async def witness(request: AgentRequest) -> dict[str, object]:
    """Takes `params.seconds`, and records the event's data in SEEN."""
    began = time.monotonic()
    await asyncio.sleep(float(str(request.params.get("seconds", 0))))
    SEEN.append((str(request.params.get("who", "")), dict(request.data), began, time.monotonic()))
    note(request, f"{request.data.get('key')}:{request.data.get('n')}")
    return {"response": "seen", "data": {"seen": request.data, "event": request.context["event"]}}


async def choosy(request: AgentRequest) -> str:
    """Rejects data with `poison`, until the file that `params.mended` names exists."""
    mended = request.params.get("mended")
    if request.data.get("poison") and not (isinstance(mended, str) and Path(mended).exists()):
        raise AgentRejected("This event is poison.")
    return "fine"


async def quoting(request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
    """Repeats the query in all that an agent can send; with `params.fail` also in failures."""
    query = request.query or str(request.params.get("say"))
    yield Progress(percent=50, note=query)
    yield Delta(text=query)
    await asyncio.sleep(float(str(request.params.get("seconds", 0))))
    match request.params.get("fail"):
        case "refuse":
            raise AgentRejected(query)
        case "once" if request.attempt == 1:
            raise AgentUnavailable(query)
        case "crash" if request.attempt == 1:
            raise ValueError(query)
    yield Reply(response=query, data={"said": query})


async def spender(request: AgentRequest) -> AsyncIterator[AgentEvent]:
    """Uses `params.tokens` in every attempt, and fails in the first `params.failures`. It reports what it used before
    its answer, unless `params.silent`.
    """
    usage = Usage(output_tokens=int(str(request.params.get("tokens", 1))))
    if not request.params.get("silent"):
        yield usage
    await asyncio.sleep(float(str(request.params.get("seconds", 0))))
    if request.attempt <= int(str(request.params.get("failures", 0))):
        raise AgentUnavailable("It failed after it had spent.", retry_after=0.2)
    yield Reply(response="spent", usage=usage)


async def liar(request: AgentRequest) -> AsyncIterator[AgentEvent]:
    """Reports a usage that is no number of tokens, past the validation."""
    value: object = {"-5": -5, "nan": float("nan"), "None": None}.get(str(request.params["value"]), "many")
    usage = Usage.model_construct(input_tokens=value, output_tokens=1)
    match request.params["where"]:
        case "yielded":
            yield usage
        case "in the error":
            raise AgentUnavailable("It is away.", usage=usage)
    yield Reply.model_construct(response="", data=None, confidence=None, usage=usage)


async def clerk(request: AgentRequest) -> dict[str, object]:
    """Refuses work with `refuse`, otherwise answers with all that it was given."""
    given = {**request.params, **request.data}
    if given.get("refuse"):
        raise AgentRejected("The clerk refuses.")
    CALLS[request.run_id] += 1
    return {"response": f"seen: {request.query or request.task}", "data": {"given": given}}
