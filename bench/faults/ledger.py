"""The campaign's record of each run: what the product acknowledged, and how it ended."""

import time
from collections import Counter
from dataclasses import dataclass, field


class LostError(Exception):
    """The product has acknowledged a run and lost it, or a part of it."""


class DoubledError(Exception):
    """Something was done twice that was asked for once."""


class RefusedError(Exception):
    """The product refuses the campaign's request as invalid."""


@dataclass
class Run:
    """One start under one key, however often it was sent."""

    pattern: str
    key: str
    fault: str
    ids: set[str] = field(default_factory=set)
    acknowledged: bool = False
    ended: bool = False
    lost: str = ""
    doubled: str = ""
    refused: str = ""
    # Its client got a wrong end, such as an error in the place of "reconnect".
    misled: str = ""
    # The agent was called so often beyond once, or once per item.
    calls_repeated: int = 0
    # Copies of a webhook or of a broker's message under one and the same id: the receiver's to drop.
    copies: int = 0
    response: str | None = None
    started_at: float = field(default_factory=time.monotonic)
    # From its first start to the client's last look.
    seconds: float = 0.0

    @property
    def id(self) -> str:
        """The id that the product gave it."""
        (only,) = self.ids
        return only

    @property
    def trouble(self) -> str:
        """What is wrong with it, if anything is."""
        return self.lost or self.doubled or self.refused or self.misled

    def know(self, identity: str) -> None:
        """Take note of an acknowledgement. Raises DoubledError if another one named another run."""
        self.acknowledged = True
        self.ids.add(identity)
        if len(self.ids) > 1:
            raise DoubledError(f"one key, two runs: {sorted(self.ids)}")

    def __str__(self) -> str:
        return f"{self.pattern} {self.key} ({', '.join(sorted(self.ids)) or 'no id'}), {self.fault}"


@dataclass
class Row:
    """All injections of one fault: the runs started around them, and how long recovery took."""

    fault: str
    how: str
    injected: int = 0
    runs: list[Run] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)
    impossible: str = ""

    @property
    def acknowledged(self) -> list[Run]:
        """The runs that count."""
        return [run for run in self.runs if run.acknowledged]


@dataclass
class Ledger:
    """The whole campaign's rows, and what is worth telling beside them."""

    rows: dict[str, Row] = field(default_factory=dict)
    # (fault, where, what): answers other than 2xx, and connections that brought none.
    odd: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    # The fault that is in hand.
    fault: str = ""

    def begin(self, pattern: str, key: str) -> Run:
        """Record a run that starts now."""
        run = Run(pattern, key, self.fault)
        self.rows[self.fault].runs.append(run)
        return run

    def report_odd(self, where: str, what: str) -> None:
        """Count what a client met."""
        self.odd[self.fault, where, what] += 1

    def note(self, what: str) -> None:
        """Keep what a person should read."""
        self.notes.append(f"{time.strftime('%H:%M:%S')} [{self.fault}] {what}")

    @property
    def runs(self) -> list[Run]:
        """All of them."""
        return [run for row in self.rows.values() for run in row.runs]

    @property
    def broken(self) -> list[Run]:
        """Those that must not be."""
        return [run for run in self.runs if run.trouble]
