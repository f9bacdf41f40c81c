"""The course of the campaign: phases with a stack of their own, and in each one fault after the other under load."""

import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.faults.api_client import ApiClient
from bench.faults.audit import audit
from bench.faults.brokers import open_exchange
from bench.faults.disk import small_disk
from bench.faults.events import subscribe
from bench.faults.injections import DISK_FAULTS, HISTORY_FAULTS, REDIS_FAULTS, Fault
from bench.faults.ledger import Ledger, Row
from bench.faults.load import Load
from bench.faults.mailbox import running_mailbox
from bench.faults.patterns import World
from bench.faults.rounds import Rounds
from bench.faults.stack import Plan, Stack, running_stack


@dataclass(frozen=True)
class Phase:
    """Faults that need the same stack, and which part of the campaign's time they get."""

    name: str
    faults: list[Fault]
    share: float
    with_broker: bool = False
    with_redis: bool = False
    with_small_disk: bool = False


PHASES = [
    Phase("streams in histories, with a broker", HISTORY_FAULTS, 0.74, with_broker=True),
    Phase("streams in Redis", REDIS_FAULTS, 0.13, with_redis=True),
    Phase("a small disk", DISK_FAULTS, 0.13, with_small_disk=True),
]


@dataclass(frozen=True)
class Campaign:
    """How long, how much, and which."""

    seconds: float
    rate: float
    seed: int
    only: frozenset[str]
    work: Path

    def phases(self) -> list[tuple[Phase, list[Fault], float]]:
        """Each phase that is wanted, its faults that are, and its seconds."""
        wanted = [(p, [f for f in p.faults if not self.only or f.name in self.only]) for p in PHASES]
        wanted = [(phase, faults) for phase, faults in wanted if faults]
        whole = sum(phase.share for phase, _ in wanted)
        return [(phase, faults, self.seconds * phase.share / whole) for phase, faults in wanted]

    async def run(self, ledger: Ledger) -> None:
        """All of it, written down in the ledger."""
        rng = random.Random(self.seed)
        for number, (phase, faults, seconds) in enumerate(self.phases(), start=1):
            print(f"phase {number}: {phase.name}, {seconds:.0f} s", flush=True)
            ledger.rows |= {fault.name: Row(fault.name, fault.how) for fault in faults}
            ledger.fault = faults[0].name
            work = self.work / f"phase-{number}"
            work.mkdir()
            await self._phase(phase, faults, time.monotonic() + seconds, ledger, rng, work)

    async def _phase(
        self, phase: Phase, faults: list[Fault], until: float, ledger: Ledger, rng: random.Random, work: Path
    ) -> None:
        async with AsyncExitStack() as opened:
            data = None
            if phase.with_small_disk:
                data, why_not = opened.enter_context(small_disk(work))
                if data is None:
                    for fault in faults:
                        ledger.rows[fault.name].impossible = why_not
                    return
            plan = Plan(with_broker=phase.with_broker, with_redis=phase.with_redis, data=data)
            stack = await opened.enter_async_context(running_stack(work, plan, ledger))
            world = await opened.enter_async_context(open_world(stack, ledger, random.Random(rng.random())))
            load = Load(world, ledger, self.rate, work.name)
            await Rounds(stack, world, load, rng).run(faults, until)
            await audit(stack, world, [run for fault in faults for run in ledger.rows[fault.name].runs])


@asynccontextmanager
async def open_world(stack: Stack, ledger: Ledger, rng: random.Random) -> AsyncIterator[World]:
    """What the load's clients have around them, while the block runs."""
    apis = ApiClient(stack.ports, ledger, rng)
    async with AsyncExitStack() as opened:
        opened.push_async_callback(apis.close)
        mailbox = await opened.enter_async_context(running_mailbox(rng))
        exchange = await opened.enter_async_context(open_exchange(stack.nats_url)) if stack.nats_url else None
        await subscribe(apis)
        yield World(apis, mailbox, exchange, rng)
