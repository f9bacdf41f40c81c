"""The load: all patterns mixed, at random moments, whatever the product does meanwhile."""

import asyncio
import itertools
import time

from bench.faults.brokers import brokered
from bench.faults.events import event, ordered
from bench.faults.ledger import DoubledError, Ledger, LostError, RefusedError, Run
from bench.faults.patterns import Client, World, analyze, hybrid, job, query, task
from bench.faults.streams import stream

# Of a hundred runs.
WEIGHTS: dict[str, tuple[Client, int]] = {
    "query": (query, 30),
    "job": (job, 10),
    "event": (event, 8),
    "ordered events": (ordered, 4),
    "analyze": (analyze, 11),
    "task": (task, 12),
    "stream": (stream, 15),
    "hybrid": (hybrid, 12),
    "broker event": (brokered, 6),
}

# A client gives up, or a run counts as hanging, after so many seconds. Faults take 20 at most.
TIMEOUT_SECONDS = 150.0

MAX_IN_FLIGHT = 400


class Load:
    """Clients that begin runs until they are stopped, and follow each to its end."""

    def __init__(self, world: World, ledger: Ledger, rate: float, prefix: str) -> None:
        """So many runs a second on average; their keys begin with `prefix`."""
        self._world = world
        self._ledger = ledger
        self._rate = rate
        self._numbers = itertools.count(1)
        self._prefix = prefix
        patterns = [name for name in WEIGHTS if world.exchange is not None or name != "broker event"]
        self._patterns = patterns
        self._weights = [WEIGHTS[name][1] for name in patterns]
        self.following: dict[asyncio.Task[None], Run] = {}
        self.skipped = 0

    def key(self) -> str:
        """One that no other run has."""
        return f"{self._prefix}-{next(self._numbers)}"

    async def run(self) -> None:
        """Begin runs until it is cancelled."""
        while True:
            await asyncio.sleep(self._world.rng.expovariate(self._rate))
            if len(self.following) >= MAX_IN_FLIGHT:
                self.skipped += 1
                continue
            (pattern,) = self._world.rng.choices(self._patterns, self._weights)
            self.follow(self._ledger.begin(pattern, self.key()), WEIGHTS[pattern][0])

    def follow(self, run: Run, client: Client) -> None:
        """Have a client begin a run and follow it."""
        following = asyncio.create_task(self._follow(run, client))
        self.following[following] = run
        following.add_done_callback(self.following.pop)

    async def _follow(self, run: Run, client: Client) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await client(run, self._world)
            run.ended = True
        except LostError as error:
            run.lost = str(error)
        except DoubledError as error:
            run.doubled = str(error)
        except RefusedError as error:
            run.refused = str(error)
        except TimeoutError:
            if run.acknowledged:
                run.lost = f"not ended after {TIMEOUT_SECONDS:.0f} s"
            else:
                self._ledger.note(f"never acknowledged within {TIMEOUT_SECONDS:.0f} s: {run}")
        except Exception as error:  # an answer that has not the form that was agreed
            run.lost = f"an answer cannot be read: {type(error).__name__} {error}"
        run.seconds = time.monotonic() - run.started_at
        if broken := run.trouble:
            print(f"  {time.strftime('%H:%M:%S')} {run}: {broken}", flush=True)

    async def wait_until_settled(self, seconds: float = TIMEOUT_SECONDS + 10) -> None:
        """Wait until all runs started by now have been followed to their ends, or given up."""
        following = set(self.following)
        if following:
            await asyncio.wait(following, timeout=seconds)
