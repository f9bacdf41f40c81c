"""One fault after the other, under a load that never pauses."""

import asyncio
import random
import time

from bench.faults.injections import Fault
from bench.faults.ledger import Run
from bench.faults.load import Load
from bench.faults.patterns import World
from bench.faults.recovery import until_recovered
from bench.faults.stack import Stack

# A fault comes at a random moment after so many quiet seconds, and runs are started for so long after it.
_QUIET_SECONDS = (3.0, 7.0)
_AFTERMATH_SECONDS = 4.0

# What a round takes at least, and what the end of a phase takes.
_ROUND_SECONDS = 20.0
_END_SECONDS = 10.0


class Rounds:
    """The faults of one phase."""

    def __init__(self, stack: Stack, world: World, load: Load, rng: random.Random) -> None:
        """Injected into `stack`, in an order that `rng` makes."""
        self._stack = stack
        self._world = world
        self._load = load
        self._rng = rng
        self._ledger = stack.ledger

    async def run(self, faults: list[Fault], until: float) -> None:
        """Inject each fault once, then each again, and so on until the time is up; at least one."""
        background = [asyncio.create_task(self._load.run()), asyncio.create_task(self._stack.watch())]
        try:
            order: list[Fault] = []
            while not order or time.monotonic() + _ROUND_SECONDS + _END_SECONDS < until:
                while len(order) < 2:  # this one and the next
                    order = [*self._rng.sample(faults, len(faults)), *order]
                await self._round(order.pop(), order[-1])
            background[0].cancel()
            await self._load.wait_until_settled()
        finally:
            for task in (*background, *self._load.following):
                task.cancel()
            done = await asyncio.gather(*background, return_exceptions=True)
        for error in done:
            if isinstance(error, Exception):
                raise error

    async def _round(self, fault: Fault, following: Fault) -> None:
        """Inject a fault, see how long the product takes to serve again, and wait for the runs that met it."""
        self._ledger.fault = fault.name
        row = self._ledger.rows[fault.name]
        before = len(row.acknowledged)
        await asyncio.sleep(self._rng.uniform(*_QUIET_SECONDS))
        began = time.monotonic()
        self._world.streams_may_be_gone = self._world.streams_may_be_gone or fault.forgets_streams
        injected = await fault.inject(self._stack, self._rng)
        row.injected += 1
        took = await until_recovered(self._world, self._load, self._ledger, injected)
        if took is None:
            self._ledger.note("no new query was answered within the time for recovery")
        else:
            row.recoveries.append(took)
        await asyncio.sleep(_AFTERMATH_SECONDS)
        await self._stack.until_ready()
        # runs that begin from now on are there when the next fault comes
        self._ledger.fault = following.name
        settling = time.monotonic()
        await self._load.wait_until_settled()
        recovery = "not served again" if took is None else f"served again after {took:.2f} s"
        ended = f"ended after another {time.monotonic() - settling:.1f} s"
        self._print(f"{fault.name}: {injected.over - began:.1f} s, {recovery}; {ended}", row.acknowledged[before:])

    def _print(self, what: str, runs: list[Run]) -> None:
        broken = len(self._ledger.broken)
        slowest = max(runs, key=lambda run: run.seconds, default=None)
        longest = f"; the longest took {slowest.seconds:.0f} s: {slowest}" if slowest else ""
        print(f"  {time.strftime('%H:%M:%S')} {what}; {len(runs)} runs, {broken} broken so far{longest}", flush=True)
