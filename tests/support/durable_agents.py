"""Durable agents of the tests, and what they have done: each call of a step leaves a line in a file."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from sevenfold import (
    AgentContext,
    AgentEvent,
    AgentRequest,
    AgentUnavailable,
    Declined,
    Delta,
    Expired,
    Reply,
    StepFailed,
)


def note(request: AgentRequest, line: object) -> None:
    """Writes down that something was executed."""
    with Path(str(request.params["log"])).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


async def shopper(request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
    """Searches, pays and ships; what `params` say goes wrong."""

    async def search(what: str) -> dict[str, object]:
        note(request, f"search {what}")
        return {"hits": [what, 1]}

    def pay(amount: int, idempotency_key: str) -> str:
        note(request, f"pay {amount}")
        return idempotency_key

    yield Delta(text="looking ")
    found = await context.step("search", search, request.query or "")
    yield Delta(text="paying ")
    key = await context.step("pay", pay, 12)
    if request.attempt <= request.params.get("failures", 0):  # type: ignore[operator]
        raise AgentUnavailable("not yet")
    several = await asyncio.gather(*(context.step("ship", search, f"box {n}", key=str(n)) for n in range(3)))
    yield Delta(text="done")
    data = {"found": found, "key": key, "several": len(several), "attempt": request.attempt}
    yield Reply(data=data)


async def counter(request: AgentRequest, context: AgentContext) -> Reply:
    """Executes as many steps as `params.steps`, each of which takes a moment."""

    async def one(number: int) -> int:
        note(request, f"step {number}")
        await asyncio.sleep(float(request.params.get("pause", 0)))  # type: ignore[arg-type]
        if number == request.params.get("dies") and not Path(f"{request.params['log']}.died").exists():
            Path(f"{request.params['log']}.died").touch()
            os._exit(9)
        return number

    count = int(request.params.get("steps", 3))  # type: ignore[arg-type]
    total = sum([await context.step("one", one, number) for number in range(count)])
    return Reply(data={"total": total, "attempt": request.attempt})


def plain(request: AgentRequest, context: AgentContext) -> dict[str, object]:
    """A plain function with steps, in a thread."""

    def double(number: int) -> int:
        note(request, f"double {number}")
        return 2 * number

    first = context.step_sync("double", double, 4)
    if request.attempt == 1:
        raise AgentUnavailable("again")
    answer = context.ask_sync("Really?", id="really") if request.params.get("asks") else None
    return {"first": first, "second": context.step_sync("double", double, first), "answer": answer}


async def changed(request: AgentRequest, context: AgentContext) -> Reply:
    """Executes other steps at its second attempt."""
    await context.step("first" if request.attempt == 1 else "other", lambda: 1)
    raise AgentUnavailable("again")


async def troubled(request: AgentRequest, context: AgentContext) -> Reply:
    """Has a step that fails, as `params.how` says."""
    tries = 0

    async def fail() -> None:
        nonlocal tries
        tries += 1
        note(request, f"try {tries}")
        if request.params["how"] == "slow":
            await asyncio.sleep(30)
        raise ValueError("no luck")

    options: dict[str, object] = {
        "recorded": {"retries": 1},
        "retry_on": {"retry_on": (OSError,)},
        "slow": {"timeout": 0.1, "retries": 0},
        "odd": {},
    }[str(request.params["how"])]  # type: ignore[assignment]
    try:
        if request.params["how"] == "odd":
            await context.step("odd", lambda: {1, 2, object()})
        await context.step("fail", fail, **options)  # type: ignore[arg-type]
    except StepFailed as failed:
        if request.attempt == 1:
            raise AgentUnavailable("again") from failed
        return Reply(response=f"{failed.type_name}: {failed.message}")
    raise AssertionError("it fails")


async def asker(request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
    """Asks as `params` say, after a step."""

    async def prepare() -> str:
        note(request, "prepare")
        return "ready"

    yield Delta(text="thinking ")
    await context.step("prepare", prepare)
    schema = request.params.get("schema")
    options: dict[str, object] = {}
    if "expires" in request.params:
        options["expires_in"] = request.params["expires"]
    if "default" in request.params:
        options["default"] = request.params["default"]
    try:
        if request.params.get("both"):
            answers = await asyncio.gather(
                context.ask("Left?", id="left"), context.ask("Right?", schema={"type": "integer"}, id="right")
            )
            yield Reply(data={"answers": list(answers), "turn": request.turn})
            return
        answer = await context.ask("May I?", schema=schema, id="may-i", **options)  # type: ignore[arg-type]
    except (Declined, Expired) as refused:
        yield Reply(response="" if request.params.get("silent") else type(refused).__name__)
        return
    yield Delta(text=f"got {answer}")
    if request.params.get("fails") and request.attempt == 1:
        raise AgentUnavailable("again")
    yield Reply(data={"answer": answer, "turn": request.turn, "attempt": request.attempt})


async def reckless(request: AgentRequest, context: AgentContext) -> Reply:
    """Kills its worker right after steps were recorded, once each, and as it asks."""

    async def one(number: int) -> int:
        note(request, f"step {number}")
        return number

    kills = request.params.get("kills", [])
    assert isinstance(kills, list)
    for number in range(int(request.params.get("steps", 3))):  # type: ignore[arg-type]
        await context.step("one", one, number)
        if number in kills:
            die_once(request, f"step-{number}")
    if not request.params.get("asks"):
        return Reply(data={"turn": request.turn})
    if "asking" in kills:
        die_once(request, "asking")
    answer = await context.ask("Go on?", id="go-on")
    if "answered" in kills:
        die_once(request, "answered")
    await context.step("last", one, 99)
    return Reply(data={"answer": answer, "turn": request.turn})


def die_once(request: AgentRequest, place: str) -> None:
    """kill -9 of this process, the first time here."""
    marker = Path(f"{request.params['log']}.{place}")
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


async def crossed(request: AgentRequest, context: AgentContext) -> Reply:
    """Two questions at once, whose order differs between the turns: the steps before them are recorded by then."""

    async def flow(name: str, seconds: float) -> str:
        await context.step("prepare", asyncio.sleep, seconds, key=name)
        return str(await context.ask(f"Refund {name}?", {"type": "string"}))

    slow, fast = await asyncio.gather(flow("A", 0.3), flow("B", 0.02))
    return Reply(data={"A": slow, "B": fast})


async def leaver(request: AgentRequest, context: AgentContext) -> Reply:
    """Its first attempt fails while a task of its own goes on."""

    async def one(name: str) -> str:
        note(request, f"{name} in attempt {request.attempt}")
        await asyncio.sleep(0.2)
        return f"{name} of attempt {request.attempt}"

    async def flow() -> str:
        return "".join([await context.step(f"s{number}", one, f"s{number}") for number in range(5)])

    working = asyncio.ensure_future(flow())
    await asyncio.sleep(0.3)
    if request.attempt == 1:
        raise AgentUnavailable("not yet")
    return Reply(response=await working)


async def cleaner(request: AgentRequest, context: AgentContext) -> Reply:
    """Has a step in `finally`, and one after the answer; with `params.inside` it asks within a step."""
    if request.params.get("inside"):
        return Reply(data={"answer": await context.step("inner", context.ask, "Go on?")})
    try:
        await context.ask("Go on?", id="go")
        await context.step("pay", asyncio.sleep, 0)
    finally:
        await context.step("release", asyncio.sleep, 0)
    return Reply(response="paid")


async def blocker(request: AgentRequest, context: AgentContext) -> Reply:
    """Calls what plain functions call."""
    return Reply(response=str(context.step_sync("one", str, 1)))


async def texts(request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
    """Yields the text of each turn in `params.turns`, and asks between them; replies with `params.response`."""
    turns = request.params["turns"]
    assert isinstance(turns, list)
    for number, text in enumerate(turns):
        if text and (request.turn <= number + 1 or not request.params.get("once")):
            yield Delta(text=str(text))
        if number + 1 < len(turns):
            await context.ask("Go on?", id=f"turn-{number + 1}")
    yield Reply(response=str(request.params.get("response", "")), data={"done": True})
