"""A campaign: groups of cases, each case made of a seed of its own so that it can be run again alone."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random

from bench.fuzz.exchange import HANG_SECONDS, Answer, Request, ask
from bench.fuzz.ledger import Fault, Ledger

API = b"/api/agent"
CONTENT_TYPE = b"Content-Type"
JSON = (CONTENT_TYPE, b"application/json")
# The seeded documents are refused or answered at once; a run that never ends shows in a quarter of the time.
SHORT_WAIT = (b"Prefer", b"wait=8")


@dataclass
class Campaign:
    """What every case needs: where the product is, what it holds, and where outcomes are noted.

    `known`: ids of real objects by kind. `scripts`: what the scripted agents answer, by the case's name.
    """

    port: int
    seed: int
    ledger: Ledger = field(default_factory=Ledger)
    known: dict[str, str] = field(default_factory=dict)
    scripts: dict[str, list[tuple[float, bytes]]] = field(default_factory=dict)
    receiver_port: int = 0


@dataclass(frozen=True)
class Case:
    """One case under way: its number in its group, and the random numbers that are its own."""

    campaign: Campaign
    group: str
    number: int
    random: Random

    @property
    def name(self) -> str:
        """A name that no other case has, safe in paths."""
        return f"{self.group}-{self.number}"

    async def ask(
        self,
        request: Request,
        *,
        stream_seconds: float = 1.0,
        timeout_seconds: float = HANG_SECONDS,
        may_be_cut: bool = False,
    ) -> Answer:
        """One exchange, noted. `may_be_cut`: no answer, or a part of one, is in order too."""
        started_at = time.time()
        answer = await ask(
            self.campaign.port, request, timeout_seconds=timeout_seconds, stream_seconds=stream_seconds
        )
        self.note(request, answer, started_at=started_at, may_be_cut=may_be_cut)
        return answer

    def note(self, request: Request, answer: Answer, *, started_at: float, may_be_cut: bool = False) -> None:
        """For what was exchanged in another way."""
        self.campaign.ledger.note(
            self.group, self.number, request, answer, started_at=started_at, may_be_cut=may_be_cut
        )

    def fault(self, what: str, example: str) -> None:
        """Something that must not happen, found by the case itself."""
        self.campaign.ledger.faults.append(Fault(f"{self.group}: {what}", f"[{self.group} {self.number}] {example}"))


@dataclass(frozen=True)
class GroupPlan:
    """A group: how its cases are run, which share of all it has, and how many are under way at once."""

    name: str
    run: Callable[[Case], Awaitable[None]]
    share: float
    at_once: int = 8


async def run_group(campaign: Campaign, plan: GroupPlan, first: int, count: int) -> None:
    """Runs `count` cases from number `first` on."""
    numbers = iter(range(first, first + count))
    started_at = time.monotonic()

    async def runner() -> None:
        for number in numbers:
            campaign.ledger.groups[plan.name].cases += 1
            await plan.run(Case(campaign, plan.name, number, Random(f"{campaign.seed}:{plan.name}:{number}")))

    async with asyncio.TaskGroup() as group:
        for _ in range(min(plan.at_once, count)):
            group.create_task(runner())
    campaign.ledger.groups[plan.name].seconds += time.monotonic() - started_at


def path(*parts: str | bytes) -> bytes:
    """An address of the API."""
    return b"/".join([API, *(part.encode() if isinstance(part, str) else part for part in parts)])


def post(target: bytes, body: bytes, *headers: tuple[bytes, bytes]) -> Request:
    """A POST of JSON, with further headers."""
    return Request("POST", target, (JSON, *headers), body)
