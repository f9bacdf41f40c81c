"""How long it takes after a fault until a new question is answered."""

import asyncio
import time

from bench.faults.agents import answer_to
from bench.faults.api_client import KEY
from bench.faults.injections import Injected
from bench.faults.ledger import DoubledError, Ledger, Run
from bench.faults.load import Load
from bench.faults.patterns import World

_LIMIT = 120.0
_PAUSE = 0.1
_WAIT = 20


async def until_recovered(world: World, load: Load, ledger: Ledger, injected: Injected) -> float | None:
    """Seconds from the end of the fault until the first new query was answered with 200, by the API that was hit
    or else by any; None if there was none in two minutes. One is sent every tenth of a second, whatever became of
    those before.
    """
    asking: set[asyncio.Task[bool]] = set()
    try:
        while time.monotonic() - injected.over < _LIMIT:
            run = ledger.begin("probe", load.key())
            asking.add(asyncio.create_task(_answered(world, run, injected.api_index)))
            await asyncio.wait(asking, timeout=_PAUSE, return_when=asyncio.FIRST_COMPLETED)
            done = {task for task in asking if task.done()}
            asking -= done
            if any(task.result() for task in done):
                return time.monotonic() - injected.over
            if done:
                await asyncio.sleep(_PAUSE / 2)  # refused at once
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    return None


async def _answered(world: World, run: Run, connection: int | None) -> bool:
    body = {"query": run.key, "agent": "word"}
    headers = {KEY: run.key, "Prefer": f"wait={_WAIT}"}
    answer = await world.api.once("POST", "/query", connection, json=body, headers=headers)
    if answer is None or answer.status_code != 200:
        return False
    try:
        run.know(answer.json()["queryId"])
    except DoubledError as error:
        run.doubled = str(error)
    run.response = answer.json()["response"]
    run.ended = True
    if run.response != answer_to(run.key):
        run.lost = f"the answer is {run.response!r}"
    return True
