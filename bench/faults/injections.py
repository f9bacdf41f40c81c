"""The faults: each by its name, how it is caused, and the code that causes it."""

import asyncio
import random
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.faults.parts import Part
from bench.faults.stack import Stack


@dataclass(frozen=True)
class Injected:
    """When the fault ended, as far as the campaign can end it, and the API that it hit, if any."""

    over: float
    api_index: int | None = None


@dataclass(frozen=True)
class Fault:
    """One kind of fault."""

    name: str
    how: str
    inject: Callable[[Stack, random.Random], Awaitable[Injected]]
    forgets_streams: bool = False


@contextmanager
def _kept_down(stack: Stack, *parts: Part) -> Iterator[None]:
    """Keep the supervisor from starting these."""
    stack.down |= {part.name for part in parts}
    try:
        yield
    finally:
        stack.down -= {part.name for part in parts}


async def _killed(stack: Stack, part: Part, pause: float) -> float:
    with _kept_down(stack, part):
        part.kill()
        await asyncio.sleep(pause)
        part.start()
    return time.monotonic()


async def kill_worker(stack: Stack, rng: random.Random) -> Injected:
    """One of two."""
    return Injected(await _killed(stack, rng.choice(stack.workers), rng.uniform(0, 2)))


async def kill_api(stack: Stack, rng: random.Random) -> Injected:
    """One of two; clients go on at the other one."""
    api_index = rng.randrange(len(stack.apis))
    return Injected(await _killed(stack, stack.apis[api_index], rng.uniform(0, 2)), api_index)


async def kill_connector(stack: Stack, rng: random.Random) -> Injected:
    """The one that there is."""
    if stack.connector is None:
        raise RuntimeError("this phase has no connector")
    return Injected(await _killed(stack, stack.connector, rng.uniform(0, 2)))


async def kill_temporal(stack: Stack, rng: random.Random) -> Injected:
    """Same database when it comes back."""
    over = await _killed(stack, stack.temporal, rng.uniform(0, 15))
    await stack.until_temporal_answers()
    return Injected(over)


async def kill_everything(stack: Stack, rng: random.Random) -> Injected:
    """In no order."""
    parts = [*stack.stores, *stack.product]
    with _kept_down(stack, *parts):
        for part in rng.sample(parts, len(parts)):
            part.kill()
        await asyncio.sleep(rng.uniform(0, 3))
        over = time.monotonic()
        await stack.start()
    return Injected(over)


async def stop_worker(stack: Stack, rng: random.Random) -> Injected:
    """Longer than its heartbeats are waited for: its calls are made elsewhere, and then it wakes up."""
    worker = rng.choice(stack.workers)
    worker.send(signal.SIGSTOP)
    await asyncio.sleep(15)
    worker.send(signal.SIGCONT)
    return Injected(time.monotonic())


async def stop_temporal(stack: Stack, rng: random.Random) -> Injected:
    """Connections stay, nothing answers."""
    stack.temporal.send(signal.SIGSTOP)
    await asyncio.sleep(rng.choice((5, 5, 20)))
    stack.temporal.send(signal.SIGCONT)
    return Injected(time.monotonic())


async def roll(stack: Stack, rng: random.Random) -> Injected:
    """A rolling update: one process after the other gets SIGTERM and is started again."""
    over, api_index = time.monotonic(), None
    for pair in zip(stack.workers, stack.apis, strict=True):
        for part in pair:
            with _kept_down(stack, part):
                code = await part.terminate()
                if code != 0:
                    stack.ledger.note(f"{part.name} ended with {code} after SIGTERM: {part.tail()}")
                part.start()
                over = time.monotonic()
                api_index = stack.apis.index(part) if part in stack.apis else api_index
            await part.until_up()
    return Injected(over, api_index)


async def kill_nats(stack: Stack, rng: random.Random) -> Injected:
    """Events are on their way in and out."""
    if stack.nats is None:
        raise RuntimeError("this phase has no broker")
    return Injected(await _killed(stack, stack.nats, rng.uniform(0, 5)))


async def kill_redis(stack: Stack, rng: random.Random) -> Injected:
    """It has written down what it acknowledged."""
    if stack.redis is None:
        raise RuntimeError("this phase has no Redis")
    return Injected(await _killed(stack, stack.redis, rng.uniform(0, 5)))


async def empty_redis(stack: Stack, rng: random.Random) -> Injected:
    """It comes back with nothing."""
    if stack.redis is None:
        raise RuntimeError("this phase has no Redis")
    with _kept_down(stack, stack.redis):
        stack.redis.kill()
        await asyncio.sleep(rng.uniform(0, 3))
        await asyncio.to_thread(shutil.rmtree, stack.work / "redis" / "appendonlydir", ignore_errors=True)
        stack.redis.start()
    return Injected(time.monotonic())


async def bad_network(stack: Stack, rng: random.Random) -> Injected:
    """For the second API, the second worker and the connector: four of these, in any order."""
    proxy = stack.proxy

    async def slow() -> None:
        proxy.slow(rng.uniform(0.05, 0.4))
        await asyncio.sleep(rng.uniform(1, 4))

    async def stalled() -> None:
        proxy.stall()
        await asyncio.sleep(rng.uniform(1, 12))

    async def refused() -> None:
        proxy.refuse()
        proxy.reset()
        await asyncio.sleep(rng.uniform(0, 13))

    async def torn() -> None:
        until = time.monotonic() + rng.uniform(1, 13)
        while time.monotonic() < until:
            proxy.reset()
            await asyncio.sleep(rng.uniform(0.05, 0.5))

    for trouble in rng.sample([slow, stalled, refused, torn], 4):
        await trouble()
        proxy.calm()
        await asyncio.sleep(rng.uniform(0, 2))
    return Injected(time.monotonic(), 1)


async def fill_disk(stack: Stack, rng: random.Random) -> Injected:
    """The server's database and the payload directory can write nothing."""
    filler = stack.data / "filler"
    try:
        until = time.monotonic() + rng.uniform(6, 20)
        while time.monotonic() < until:
            await asyncio.to_thread(_fill, filler)  # again and again: what others give back is taken too
            await asyncio.sleep(0.1)
    finally:
        filler.unlink(missing_ok=True)
    over = time.monotonic()
    await stack.revive()
    await stack.until_temporal_answers()
    return Injected(over)


def _fill(path: Path) -> None:
    with path.open("ab", buffering=0) as filler:
        try:
            for size in (1 << 20, 4096, 1):
                while filler.write(b"\0" * size) == size:
                    pass
        except OSError:
            return


HISTORY_FAULTS = [
    Fault("worker killed", "kill -9 of a worker, started again within 2 s", kill_worker),
    Fault("API killed", "kill -9 of one of two APIs (one has a worker inside), started again within 2 s", kill_api),
    Fault("Temporal killed", "kill -9 of the server, same database, started again within 15 s", kill_temporal),
    Fault("everything killed", "kill -9 of every process and the broker, started again within 3 s", kill_everything),
    Fault("worker stopped", "SIGSTOP of a worker for 15 s", stop_worker),
    Fault("Temporal stopped", "SIGSTOP of the server for 5 s, now and then for 20 s", stop_temporal),
    Fault("rolling restart", "SIGTERM of workers and APIs, one after the other", roll),
    Fault("connector killed", "kill -9 of `sevenfold connect`, started again within 2 s", kill_connector),
    Fault("broker killed", "kill -9 of nats-server, started again within 5 s", kill_nats),
    Fault("bad network", "a proxy before Temporal delays, stalls, resets and refuses for up to 45 s", bad_network),
]
REDIS_FAULTS = [
    Fault("Redis killed", "kill -9 of the stream log (AOF), started again within 5 s", kill_redis),
    Fault("Redis emptied", "kill -9 of the stream log, started again within 3 s without its data", empty_redis, True),
]
DISK_FAULTS = [Fault("disk full", "a file fills the data directory's file system for 6 to 20 s", fill_disk)]
