"""What came of the cases: counted by group, with examples of whatever must not happen."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from bench.fuzz.exchange import HANG_SECONDS, Answer, Request

# Failures of agents and of what was to be fetched are answers like any other.
_LEGITIMATE = re.compile(r"agent-[a-z-]+|deadline-exceeded|circuit-open|document-unavailable")
_PUBLIC_ID = re.compile(r"[a-z]{3,4}_[a-z2-7]{26}")
_JSON_TYPES = ("application/json", "application/problem+json")
_MAX_SHOWN = 160
_MAX_ROUTE = 70


@dataclass(frozen=True)
class Exchange:
    """One exchange in time, by the wall clock, so that a stall can be attributed to it."""

    group: str
    case: int
    started_at: float
    ended: float
    size: int
    label: str
    answered: bool


@dataclass
class Group:
    """One group's figures."""

    cases: int = 0
    exchanges: int = 0
    by_class: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Fault:
    """A finding that fails the campaign; its request id leads to the cause in the product's log."""

    what: str
    example: str
    request_id: str = ""


class Ledger:
    """All groups, and what was found: `faults` fail a campaign, `remarks`, by kind and with examples, do not."""

    def __init__(self) -> None:
        self.groups: dict[str, Group] = defaultdict(Group)
        self.exchanges: list[Exchange] = []
        self.faults: list[Fault] = []
        self.remarks: dict[str, list[str]] = defaultdict(list)

    def note(
        self, group: str, case: int, request: Request, answer: Answer, *, started_at: float, may_be_cut: bool
    ) -> None:
        """Counts one exchange and judges its answer. `may_be_cut`: no answer at all is in order."""
        figures = self.groups[group]
        figures.exchanges += 1
        figures.by_class[f"{answer.status // 100}xx" if answer.status else "none"] += 1
        label = shown(request)
        figures.slowest = max(figures.slowest, answer.seconds)
        size = len(request.raw if request.raw is not None else request.body)
        self.exchanges.append(
            Exchange(group, case, started_at, started_at + answer.seconds, size, label, answer.status is not None)
        )
        example = f"[{group} {case}] {label} -> {answer.body[:_MAX_SHOWN].decode('utf-8', 'replace')}"
        body = answer.json
        request_id = str(body.get("requestId", "")) if isinstance(body, dict) else ""
        for what in _faults(answer, may_be_cut=may_be_cut):
            self.faults.append(Fault(f"{route(request)}: {what}", example, request_id))
        for remark in _remarks(answer):
            self.remarks[remark].append(example)

    def during(self, at: float, seconds: float) -> list[Exchange]:
        """The exchanges that were under way in a span of time, the largest first."""
        meant = (one for one in self.exchanges if one.started_at <= at + seconds and one.ended >= at - 0.05)
        return sorted(meant, key=lambda one: -one.size)


def _faults(answer: Answer, *, may_be_cut: bool) -> Iterable[str]:
    if answer.seconds >= HANG_SECONDS:
        yield f"hangs ({answer.failure or answer.status})"
    elif answer.status is None and not may_be_cut:
        yield f"no answer ({(answer.failure or '').split(':')[0]})"
    elif answer.status is not None and answer.failure is not None and not may_be_cut:
        yield f"{answer.status}, and the body breaks off"
    if answer.status is not None and answer.status >= 500 and not _LEGITIMATE.fullmatch(answer.problem or ""):
        yield f"{answer.status} {answer.problem or answer.media_type or 'without a type'}"
    whole = answer.body and not answer.cut and not answer.failure
    if answer.media_type in _JSON_TYPES and whole and answer.json is None and answer.body.strip() != b"null":
        yield f"{answer.status} with a body that is not JSON"


def _remarks(answer: Answer) -> Iterable[str]:
    if answer.status and 400 <= answer.status < 500 and answer.media_type != "application/problem+json":
        yield f"{answer.status} {answer.media_type or 'without a type'}"
    if answer.problem is not None and not answer.cut and not _complete(answer):
        yield f"{answer.status} {answer.problem} with members missing or wrong"


def _complete(answer: Answer) -> bool:
    body = answer.json
    known = isinstance(body, dict) and all(body.get(name) for name in ("type", "title", "detail", "requestId"))
    return known and isinstance(body, dict) and body.get("status") == answer.status


def route(request: Request) -> str:
    """The method and the path, with ids and names that stand for any other taken out."""
    path = request.target.partition(b"?")[0].decode("latin-1")
    path = re.sub(r"(/subscriptions)/[^/]+", r"\1/{name}", _PUBLIC_ID.sub("{id}", path))
    return f"{request.method} {path}"[:_MAX_ROUTE]


def shown(request: Request) -> str:
    """A request on one line, cut where it is long."""
    if request.raw is not None:
        return f"raw {request.raw[:_MAX_SHOWN]!r}"
    headers = "".join(f" {_cut(name + b': ' + value, 80)!r}" for name, value in request.headers[:6])
    body = f" {_cut(request.body, _MAX_SHOWN)!r}" if request.body else ""
    size = f" ({len(request.body):,} bytes)" if len(request.body) > _MAX_SHOWN else ""
    return f"{request.method} {_cut(request.target, _MAX_SHOWN).decode('latin-1')}{headers}{body}{size}"


def _cut(piece: bytes, length: int) -> bytes:
    return piece if len(piece) <= length else piece[: length - 3] + b"..."
