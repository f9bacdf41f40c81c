"""Measuring contenders side by side: interleaved rounds, medians, and only one of them loaded at a time."""

import asyncio
import contextlib
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

from bench.processes import cpu_seconds

Call = Callable[[], Awaitable[None]]
PrintLine = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How much is measured. `seconds` is the window of the rate, `calls` the sample of the p50, per round."""

    rounds: int = 5
    calls: int = 40
    seconds: float = 6.0
    in_flight: int = 50
    warm_up: int = 10


@dataclass(frozen=True)
class Turn:
    """One contender's figures of one round: p50 in milliseconds at 1 in flight, requests/s at `in_flight`."""

    p50: float
    rate: float


@dataclass
class Contender:
    """Something that answers requests. Entering `opener` starts all it needs and gives the call to measure."""

    key: str
    title: str
    opener: AbstractAsyncContextManager[Call]
    turns: dict[int, Turn] = field(default_factory=dict)
    not_run: str | None = None

    def median(self, figure: Callable[[Turn], float]) -> float:
        """Return the median over the rounds."""
        return statistics.median(figure(turn) for turn in self.turns.values())


@dataclass
class Noise:
    """What the machine did by itself: its busy share while every contender rested, as each turn began."""

    busy: list[float] = field(default_factory=list)


async def measure(contenders: list[Contender], plan: Plan, print_line: PrintLine) -> Noise:
    """Open every contender, then give each its turn in every round.

    One that cannot be opened, or fails in mid-run, has the reason in `not_run` and the others go on. Everything is
    open at once so that rounds can interleave: idle servers were measured at 0.3 % of a core each.
    """
    noise = Noise()
    async with contextlib.AsyncExitStack() as stack:
        calls: dict[str, Call] = {}
        for contender in contenders:
            try:
                calls[contender.key] = await stack.enter_async_context(contender.opener)
                print_line(f"{contender.title}: ready")
            except Exception as error:  # whatever kept one peer from starting is a line in the report
                contender.not_run = reason(error)
                print_line(f"{contender.title}: not run: {contender.not_run}")
        for number in range(plan.rounds):
            # Every other round runs backwards, so that no contender always follows the same neighbour.
            for contender in contenders if number % 2 == 0 else reversed(contenders):
                if contender.not_run is None:
                    await _take_turn(contender, calls[contender.key], number, plan, noise, print_line)
    return noise


async def _take_turn(
    contender: Contender, call: Call, number: int, plan: Plan, noise: Noise, print_line: PrintLine
) -> None:
    noise.busy.append(await quiet())
    try:
        async with asyncio.timeout(90):
            for _ in range(plan.warm_up):
                await call()
            turn = Turn(await p50(call, plan.calls), await rate(call, plan.in_flight, plan.seconds))
    except Exception as error:  # the same: one contender's failure must not cost the others their figures
        contender.not_run = f"failed in round {number + 1}: {reason(error)}"
        print_line(f"{contender.title}: {contender.not_run}")
        return
    contender.turns[number] = turn
    print_line(f"round {number + 1}: {contender.title}: {turn.p50:.1f} ms, {turn.rate:.0f}/s")


async def quiet(limit: float = 0.25, timeout_seconds: int = 10) -> float:
    """Wait until the machine is less than `limit` busy, `timeout_seconds` seconds at most; return how busy it still
    is.

    What the turn before left behind (database writes, closed runs) and other programs' bursts pass meanwhile.
    """
    await asyncio.sleep(0.5)
    for _ in range(timeout_seconds):
        busy = await busy_share(1)
        if busy < limit:
            break
    return busy


async def p50(call: Call, calls: int) -> float:
    """Return the median duration in milliseconds of `calls` calls, one after the other."""
    durations: list[float] = []
    for _ in range(calls):
        start = time.perf_counter()
        await call()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations) * 1000


async def rate(call: Call, in_flight: int, seconds: float) -> float:
    """Return completed calls per second with `in_flight` callers that each call again as soon as answered.

    Counted from the `in_flight`-th answer on: the ramp-up, where nothing is answered yet, is no throughput.
    """
    answered: list[float] = []
    ramped_up, stop = asyncio.Event(), False

    async def caller() -> None:
        while not stop:
            await call()
            answered.append(time.perf_counter())
            if len(answered) == in_flight:
                ramped_up.set()

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(caller())
        await ramped_up.wait()
        first = answered[in_flight - 1]
        await asyncio.sleep(seconds)
        stop = True
        counted = len(answered) - in_flight
        last = answered[-1]
    return counted / (last - first) if counted else 0.0


async def busy_share(seconds: float) -> float:
    """Return the share (0 to 1) of all cores that was busy; 0 where there is no /proc/stat."""
    before = _cpu_times()
    await asyncio.sleep(seconds)
    idle, total = (after - earlier for after, earlier in zip(_cpu_times(), before, strict=True))
    return 1 - idle / total if total else 0.0


async def shares(seconds: float) -> tuple[float, float]:
    """Return the share of all cores that was busy, and the part of it with programs that are none of ours."""
    before = cpu_seconds(os.getpid(), with_server=True)
    busy = await busy_share(seconds)
    ours = (cpu_seconds(os.getpid(), with_server=True) - before) / seconds / (os.cpu_count() or 1)
    return busy, max(0.0, busy - ours)


def _cpu_times() -> tuple[int, int]:
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0, 0
    times = [int(part) for part in stat.read_text().split("\n", 1)[0].split()[1:9]]
    return times[3] + times[4], sum(times)


def reason(error: BaseException) -> str:
    """Return one line with the cause; of a group, the first cause."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(str(error).split()) or type(error).__name__


def paired_ratio(one: Contender, other: Contender, figure: Callable[[Turn], float]) -> float | None:
    """Return the median of one/other over the rounds that both finished, or None without such a round.

    Paired within the round, noise that slowed the whole machine for a while cancels out.
    """
    rounds = one.turns.keys() & other.turns.keys()
    if not rounds:
        return None
    return statistics.median(figure(one.turns[n]) / figure(other.turns[n]) for n in rounds)
