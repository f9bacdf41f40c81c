"""What a suite is: one Sevenfold of its own, loaded in some way a few times over, and figures with their targets."""

import statistics
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.harness import PrintLine, quiet, reason
from bench.sevenfold import Ports, Sevenfold, run_sevenfold

ROUNDS = 3  # at most: a suite's round is a whole job, not a single request


@dataclass(frozen=True)
class Aim:
    """A figure's words, and the target it is held against if it has one."""

    title: str
    unit: str = ""
    target: float | None = None
    less: bool = True
    digits: int = 0


@dataclass
class Suite:
    """A way to load Sevenfold, with `settings` and lines of `config` of its own. `round` gives one figure for each of
    `aims`, in order. `api_key` is that of the harness's own requests, where `config` has keys. `rounds`: at most.
    """

    key: str
    aims: list[Aim]
    round: Callable[[Sevenfold, Path], Awaitable[list[float]]]
    settings: Mapping[str, str] = field(default_factory=dict)
    config: str = ""
    api_key: str | None = None
    rounds: int = ROUNDS
    figures: list[list[float]] = field(default_factory=list)
    not_run: str | None = None

    def of(self, aim: Aim) -> list[float]:
        """Return that figure of every round that was finished."""
        place = self.aims.index(aim)
        return [figures[place] for figures in self.figures]


async def run_suites(suites: list[Suite], work: Path, rounds: int, print_line: PrintLine) -> None:
    """Run one suite after the other; one that fails has the reason in `not_run`, and the others go on.

    Each has a Sevenfold with an empty data folder: what another left behind must not be in its figures.
    """
    for suite in suites:
        try:
            data, ports = work / suite.key, Ports.free()
            async with run_sevenfold(work, data, ports, suite.settings, suite.config, suite.api_key) as sevenfold:
                for _ in range(5):
                    await sevenfold.query()
                for number in range(min(rounds, suite.rounds)):
                    busy = await quiet(timeout_seconds=30)
                    suite.figures.append(await suite.round(sevenfold, work))
                    print_line(
                        f"round {number + 1}: {suite.key}: {_describe(suite)} (machine {busy:.0%} busy before)"
                    )
        except Exception as error:  # what was measured before stays in the report, with the reason
            suite.not_run = reason(error)
            print_line(f"{suite.key}: not run: {suite.not_run}")


def _describe(suite: Suite) -> str:
    last = suite.figures[-1]
    return ", ".join(f"{value:.{aim.digits}f}{aim.unit}" for aim, value in zip(suite.aims, last, strict=True))


def p95(values: list[float]) -> float:
    """Return the 95th percentile."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1]
