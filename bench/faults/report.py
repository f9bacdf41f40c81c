"""The campaign's figures as Markdown."""

import statistics
from collections import defaultdict

from bench.faults.ledger import Ledger, Row

_MAX_SHOWN = 60

_HEAD = (
    "| fault | how it is caused | injected | acknowledged | lost | doubled | misled | agent calls repeated | copies "
    "| longest run | recovery p50 | p95 |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
)


def report(ledger: Ledger, circumstances: str) -> str:
    """The table, and below it what was met and what broke."""
    rows = list(ledger.rows.values())
    parts = ["# Faults injected", circumstances, _table(rows), _explained()]
    if ledger.broken:
        broken = [f"- {run}: {run.trouble}" for run in ledger.broken]
        parts += ["## Lost, doubled, misled or refused", "\n".join(broken[:_MAX_SHOWN])]
    parts += ["## Answers other than 2xx, and connections without an answer", _odd(ledger)]
    if ledger.notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in ledger.notes[:_MAX_SHOWN])]
    return "\n\n".join(parts) + "\n"


def _table(rows: list[Row]) -> str:
    whole = Row("**all**", "", sum(row.injected for row in rows))
    whole.runs = [run for row in rows for run in row.runs]
    whole.recoveries = [seconds for row in rows for seconds in row.recoveries]
    return "\n".join([_HEAD, *(_line(row) for row in [*rows, whole])])


def _line(row: Row) -> str:
    if row.impossible:
        return f"| {row.fault} | {row.how} | {row.impossible} | | | | | | | | | |"
    runs = row.acknowledged
    lost = sum(bool(run.lost) for run in row.runs)
    doubled = sum(bool(run.doubled) for run in row.runs)
    misled = sum(bool(run.misled or run.refused) for run in row.runs)
    calls = sum(run.calls_repeated for run in runs)
    copies = sum(run.copies for run in runs)
    longest = max((run.seconds for run in runs), default=0)
    p50, p95 = _percentiles(row.recoveries)
    return (
        f"| {row.fault} | {row.how} | {row.injected} | {len(runs):,} | {lost} | {doubled} | {misled} | {calls} "
        f"| {copies} | {longest:.0f} s | {p50} | {p95} |"
    )


def _percentiles(seconds: list[float]) -> tuple[str, str]:
    if not seconds:
        return "", ""
    if len(seconds) == 1:
        return f"{seconds[0]:.2f} s", f"{seconds[0]:.2f} s"
    p95 = statistics.quantiles(seconds, n=20, method="inclusive")[-1]
    return f"{statistics.median(seconds):.2f} s", f"{p95:.2f} s"


def _explained() -> str:
    return (
        "*Lost*: unknown, not ended, failed though its agent did not, without a part of its result, or out of order. "
        "*Doubled*: two runs for one key, webhooks with two ids, two reactions, or a stream's index twice. *Misled*: "
        "refused, or sent an error as the end of a stream that goes on. *Agent calls repeated*: beyond one for a run "
        "or item, which at-least-once allows. *Copies*: webhooks and messages out of the broker under one id, which "
        "the receiver drops; streams of which Redis lost a part and reported it. *Longest run*: from its first start "
        "to its client's last look. *Recovery*: from the end of the fault (all processes started, the network calm, "
        "the disk with room) to the first new query answered with 200."
    )


def _odd(ledger: Ledger) -> str:
    by_where: defaultdict[str, list[str]] = defaultdict(list)
    for (fault, where, what), count in sorted(ledger.odd.items()):
        by_where[fault].append(f"{where} {what}: {count}")
    return "\n".join(f"- {fault}: {'; '.join(lines)}" for fault, lines in by_where.items()) or "None."
