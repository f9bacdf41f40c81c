"""Recommends a pattern: the article's five questions, thresholds and common mistakes."""

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from sevenfold.contracts.payload import Payload, RequestBody
from sevenfold.contracts.runs.run import Pattern

# The article's thresholds, in seconds and in requests per minute.
SHORT_SECONDS, LONG_SECONDS = 5.0, 60.0
LOW_TRAFFIC, HIGH_TRAFFIC = 100.0, 1_000.0


class ClientKind(StrEnum):
    """Who controls the client. `legacy` can only poll."""

    OWN = "own"
    THIRD_PARTY = "thirdParty"
    LEGACY = "legacy"


class Maturity(StrEnum):
    """How much infrastructure the team operates."""

    EARLY = "early"
    GROWING = "growing"
    MATURE = "mature"


class Situation(RequestBody):
    """Answers to the five questions; unanswered ones carry no weight."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"durationSeconds": 45, "client": "thirdParty", "requestsPerMinute": 20}]}
    )

    duration_seconds: Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)] | None = Field(
        default=None, description="Duration of an agent call in seconds."
    )
    client: ClientKind | None = Field(default=None, description="Who controls the client.")
    requests_per_minute: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = Field(
        default=None, description="Requests per minute."
    )
    real_time_feedback: bool | None = Field(default=None, description="Whether people watch the progress.")
    maturity: Maturity | None = Field(default=None, description="Maturity of the infrastructure that you operate.")


class Reason(Payload):
    """An argument for a pattern, and the question that it comes from."""

    question: str
    pattern: Pattern
    detail: str


class Recommendation(Payload):
    """The recommended pattern, the alternatives, the reasons, and warnings."""

    pattern: Pattern
    start: str = Field(description="The call that starts it.")
    alternatives: list[Pattern]
    reasons: list[Reason]
    conflicts: list[str] = Field(description="Answers that contradict each other, and the compromise.")
    warnings: list[str] = Field(description="Common mistakes with this pattern.")


START_CALLS: dict[Pattern, str] = {
    Pattern.SYNCHRONOUS: "POST /api/agent/query",
    Pattern.QUEUE: "POST /api/agent/jobs",
    Pattern.EVENT: "POST /api/agent/events",
    Pattern.WEBHOOK: "POST /api/agent/analyze",
    Pattern.POLLING: "POST /api/agent/tasks",
    Pattern.STREAMING: "POST /api/agent/stream",
    Pattern.HYBRID: "POST /api/agent/hybrid",
}

# With equal weights the simpler pattern is chosen.
_SIMPLEST_FIRST = list(START_CALLS)


def recommend(situation: Situation) -> Recommendation:
    """Recommends a pattern for a situation. Without any answer: the synchronous one, the simplest start."""
    reasons = _reasons(situation)
    weights = dict.fromkeys(_SIMPLEST_FIRST, 0.0)
    for reason, weight in reasons:
        weights[reason.pattern] += weight
    _rule_out(situation, weights)
    ranked = sorted(_SIMPLEST_FIRST, key=lambda pattern: (-weights[pattern], _SIMPLEST_FIRST.index(pattern)))
    chosen = ranked[0]
    return Recommendation(
        pattern=chosen,
        start=START_CALLS[chosen],
        alternatives=[pattern for pattern in ranked[1:] if weights[pattern] > 0],
        reasons=[reason for reason, _ in reasons],
        conflicts=_conflicts(situation),
        warnings=_warnings(situation, chosen),
    )


def _reasons(situation: Situation) -> list[tuple[Reason, float]]:
    found: list[tuple[Reason, float]] = []

    def add_reason(question: str, detail: str, **weights: float) -> None:
        for pattern, weight in weights.items():
            found.append((Reason(question=question, pattern=Pattern(pattern), detail=detail), weight))

    _by_duration(situation, add_reason)
    _by_client(situation, add_reason)
    _by_traffic(situation, add_reason)
    if situation.real_time_feedback is not None:
        if situation.real_time_feedback:
            add_reason("realTimeFeedback", "People who wait want to see the answer grow.", streaming=1.5)
        else:
            add_reason(
                "realTimeFeedback", "Without an audience, the work may run in the background.", queue=0.4, event=0.3
            )
    _by_maturity(situation, add_reason)
    return found


def _by_duration(situation: Situation, add_reason: Callable[..., None]) -> None:
    seconds = situation.duration_seconds
    if seconds is None:
        return
    if seconds < SHORT_SECONDS:
        add_reason(
            "durationSeconds",
            f"{round(seconds, 2):g} s is below {SHORT_SECONDS:g} s: an answer in the response.",
            synchronous=1.0,
        )
    elif seconds <= LONG_SECONDS:
        detail = (
            f"{round(seconds, 2):g} s is between {SHORT_SECONDS:g} and {LONG_SECONDS:g} s: too long without feedback."
        )
        add_reason("durationSeconds", detail, streaming=1.0, queue=0.9)
    else:
        detail = f"{round(seconds, 2):g} s is beyond {LONG_SECONDS:g} s: too long to keep a connection open."
        add_reason("durationSeconds", detail, queue=1.0, webhook=0.8, polling=0.6)


def _by_client(situation: Situation, add_reason: Callable[..., None]) -> None:
    match situation.client:
        case ClientKind.OWN:
            add_reason("client", "You control both sides: a queue or events decouple them.", queue=0.4, event=0.35)
        case ClientKind.THIRD_PARTY:
            add_reason("client", "A webhook notifies a third party's system of the result.", webhook=1.5)
        case ClientKind.LEGACY:
            add_reason("client", "A legacy system can only poll.", polling=2.5)


def _by_traffic(situation: Situation, add_reason: Callable[..., None]) -> None:
    rate = situation.requests_per_minute
    if rate is None:
        return
    if rate < LOW_TRAFFIC:
        add_reason(
            "requestsPerMinute",
            f"{round(rate, 2):g} a minute is below {LOW_TRAFFIC:g}: synchronous is fine.",
            synchronous=0.4,
        )
    elif rate <= HIGH_TRAFFIC:
        detail = (
            f"{round(rate, 2):g} a minute is between {LOW_TRAFFIC:g} and {HIGH_TRAFFIC:g}: a queue for heavy work."
        )
        add_reason("requestsPerMinute", detail, queue=0.8)
    else:
        detail = f"{round(rate, 2):g} a minute is beyond {HIGH_TRAFFIC:g}: events, with workers that consume a queue."
        add_reason("requestsPerMinute", detail, event=1.2, queue=0.8)


def _by_maturity(situation: Situation, add_reason: Callable[..., None]) -> None:
    match situation.maturity:
        case Maturity.EARLY:
            add_reason("maturity", "An early team starts with simple patterns.", synchronous=0.6, queue=0.4)
        case Maturity.GROWING:
            add_reason("maturity", "A growing team can run queues and webhooks.", queue=0.6, webhook=0.5)
        case Maturity.MATURE:
            add_reason(
                "maturity", "A mature team can run events, and several patterns at once.", event=0.6, hybrid=0.6
            )


def _rule_out(situation: Situation, weights: dict[Pattern, float]) -> None:
    """Excludes patterns that cannot work, whatever their weights."""
    if situation.duration_seconds is not None and situation.duration_seconds > 30:
        weights[Pattern.SYNCHRONOUS] = -1.0
    if situation.client is ClientKind.LEGACY:
        for pattern in (Pattern.WEBHOOK, Pattern.STREAMING, Pattern.EVENT):
            weights[pattern] = -1.0
    if situation.client is ClientKind.THIRD_PARTY:
        weights[Pattern.EVENT] -= 0.5


def _conflicts(situation: Situation) -> list[str]:
    found = []
    legacy = situation.client is ClientKind.LEGACY
    if legacy and situation.real_time_feedback:
        found.append("A legacy client cannot show progress as it happens: it polls, and sees a percentage.")
    if situation.client is ClientKind.THIRD_PARTY and situation.real_time_feedback:
        found.append(
            "A third party's server wants a webhook, its people want to watch: start with `webhookUrl`, and let a "
            "browser follow the run's stream."
        )
    seconds, rate = situation.duration_seconds, situation.requests_per_minute
    if seconds is not None and rate is not None and seconds < SHORT_SECONDS and rate > HIGH_TRAFFIC:
        found.append("Short answers, but many: synchronous, and a queue before the agent when it falls behind.")
    if situation.maturity is Maturity.EARLY and rate is not None and rate > HIGH_TRAFFIC:
        found.append("So many requests need events or a queue, which an early team has not run: begin with jobs.")
    return found


def _warnings(situation: Situation, chosen: Pattern) -> list[str]:
    found = ["Send an Idempotency-Key with every start: a request that is repeated is then worked on once."]
    seconds, rate = situation.duration_seconds, situation.requests_per_minute
    if seconds is not None and seconds > SHORT_SECONDS:
        found.append("Synchronous for everything: 30 s timeouts spoil it for those who wait.")
    if chosen is Pattern.SYNCHRONOUS:
        found.append("Under-engineering: a synchronous call for ten thousand documents fails; those are jobs.")
    if chosen in (Pattern.EVENT, Pattern.HYBRID) and (
        situation.maturity is Maturity.EARLY or (rate or HIGH_TRAFFIC) < LOW_TRAFFIC
    ):
        found.append("Over-engineering: events for a simple bot are more than it needs.")
    if chosen is Pattern.EVENT:
        found.append("No observability: look at GET /events/{id} for what an event caused, and at the dead letters.")
    if chosen is Pattern.QUEUE:
        found.append("No observability: when the queue backs up you need to know; watch depth and age at GET /stats.")
    if chosen is Pattern.POLLING:
        found.append("Polling every second wastes what it asks: obey Retry-After, or use ?wait=30.")
    if chosen is Pattern.WEBHOOK:
        found.append("Verify signatures, and handle each webhook-id once; the result can be polled for if all fails.")
    if chosen in (Pattern.STREAMING, Pattern.SYNCHRONOUS) and rate is not None and rate > HIGH_TRAFFIC:
        found.append("So many open connections have to be paid for; queue what need not be watched.")
    return found
