"""The report of a campaign."""

from collections import Counter, defaultdict
from collections.abc import Mapping

from bench.fuzz.ledger import Fault, Ledger
from bench.fuzz.watch import Probes, Slow

STALL_SECONDS = 0.3
EXAMPLES = 5
_MAX_LINE = 420
_MAX_STALLS = 12
_MAX_SLOW = 12


def stalls(probes: Probes) -> list[Slow]:
    """The probes for which the product held its event loop too long, the worst first."""
    return sorted((one for one in probes.slow if one.held_seconds > STALL_SECONDS), key=lambda one: -one.held_seconds)


def table(ledger: Ledger, probes: Probes) -> list[str]:
    """A line of figures per group."""
    stalled = _by_group(ledger, probes)
    lines = [
        "| group | cases | requests | seconds | 2xx | 3xx | 4xx | 5xx | none | slowest | stalls > 0.3 s (worst) |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, group in ledger.groups.items():
        counts = [group.by_class[one] for one in ("2xx", "3xx", "4xx", "5xx", "none")]
        times = stalled.get(name, [])
        worst = f"{len(times)} ({max(times):.2f} s)" if times else "0"
        shares = " | ".join(str(count) for count in counts)
        figures = f"{group.cases} | {group.exchanges} | {group.seconds:.0f} | {shares} | {group.slowest:.2f} s"
        lines.append(f"| {name} | {figures} | {worst} |")
    return lines


def _stalls_title(probes: Probes) -> str:
    """With how many probes were only slow because other programs had the processors."""
    starved = sum(one.seconds > STALL_SECONDS for one in probes.slow) - len(stalls(probes))
    more = f" ({starved} more were slow while it had no processor)" if starved else ""
    return f"## Stalls: {len(stalls(probes))} of {probes.count} probes took over {STALL_SECONDS} s{more}"


def _by_group(ledger: Ledger, probes: Probes) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for stall in stalls(probes):
        during = Counter(one.group for one in ledger.during(stall.at, stall.seconds))
        name = during.most_common(1)[0][0] if during else "between groups"
        found.setdefault(name, []).append(stall.held_seconds)
    return found


def findings(ledger: Ledger, probes: Probes, causes: Mapping[str, str]) -> list[str]:
    """Faults with examples, then stalls with the largest request that was under way, then remarks. `causes`: what the
    product's log has, by request id.
    """
    found: dict[str, list[Fault]] = defaultdict(list)
    for fault in ledger.faults:
        found[causes.get(fault.request_id, fault.what)].append(fault)
    lines = ["", f"## {len(ledger.faults)} faults of {len(found)} kinds", ""]
    for kind, faults in sorted(found.items(), key=lambda one: -len(one[1])):
        lines.append(f"- {kind}: {len(faults)} times")
        routes = Counter(fault.what for fault in faults)
        lines += [f"    {count} x {what}" for what, count in routes.most_common(EXAMPLES) if what != kind]
        lines += [f"    {_cut(fault.example)}" for fault in faults[:EXAMPLES]]
    lines += ["", _stalls_title(probes), ""]
    for stall in stalls(probes)[:_MAX_STALLS]:
        during = ledger.during(stall.at, stall.seconds)
        largest = f"[{during[0].group} {during[0].case}] {during[0].label}" if during else "nothing"
        lines.append(_cut(f"- {stall.held_seconds:.2f} s; {len(during)} requests under way, the largest: {largest}"))
    lines += [f"- a probe failed: {why}" for _, why in probes.failed[:EXAMPLES]]
    lines += ["", "## 4xx answers that are no whole problem+json", ""]
    for what, examples in ledger.remarks.items():
        lines.append(f"- {what}: {len(examples)} times")
        lines += [f"    {_cut(example)}" for example in examples[:2]]
    lines += ["", "## The slowest answers", ""]
    answered = (one for one in ledger.exchanges if one.answered)
    slowest = sorted(answered, key=lambda one: one.started_at - one.ended)[:_MAX_SLOW]
    lines += [_cut(f"- {one.ended - one.started_at:.2f} s [{one.group} {one.case}] {one.label}") for one in slowest]
    return lines


def _cut(line: str) -> str:
    return line if len(line) <= _MAX_LINE else line[: _MAX_LINE - 3] + "..."
