"""The benchmark's tables, in Markdown, with each target beside what was got."""

import importlib.metadata
import os
import platform
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.environment import peers_versions
from bench.footprint import Footprint
from bench.harness import Contender, Noise, Plan, Turn, paired_ratio
from bench.suite import Aim, Suite

BEGIN = "<!-- bench:begin -->"
END = "<!-- bench:end -->"
TIMES = " \N{MULTIPLICATION SIGN}"


def latency(turn: Turn) -> float:
    """The p50 in milliseconds."""
    return turn.p50


def throughput(turn: Turn) -> float:
    """Requests per second."""
    return turn.rate


# What each figure of Sevenfold is held against: words, figure, opponent, target, whether less is better.
RATIOS: list[tuple[str, Callable[[Turn], float], str, float, bool]] = [
    ("p50, 1 in flight, against the bare client", latency, "bare", 1.0, True),
    ("p50, 1 in flight, against plain `start-dev`", latency, "bare-plain", 0.35, True),
    ("requests/s, 50 in flight, against the bare client", throughput, "bare", 1.0, False),
]


def requests_table(contenders: list[Contender], plan: Plan) -> list[str]:
    """Return one row per contender; in brackets the lowest and the highest round."""
    head = ["contender", "p50, 1 in flight", f"requests/s, {plan.in_flight} in flight"]
    rows = []
    for contender in contenders:
        if contender.turns:
            row = [contender.title, _spread(contender, latency, " ms", 1), _spread(contender, throughput, "", 0)]
        else:
            row = [contender.title, f"not run: {contender.not_run}", ""]
        if contender.turns and contender.not_run:
            row[0] += f" ({contender.not_run})"
        rows.append(row)
    return _table(head, rows)


def targets_table(contenders: list[Contender], footprint: Footprint | None) -> list[str]:
    """Return one row per target: what was got, what was aimed at, met or missed."""
    by_key = {contender.key: contender for contender in contenders}
    rows = []
    for key, words in (("sevenfold", ""), ("sevenfold-regular", ", regular activity")):
        for title, figure, opponent, target, less in RATIOS:
            if key in by_key and opponent in by_key:
                ratio = paired_ratio(by_key[key], by_key[opponent], figure)
                rows.append([title + words, *_assessment(ratio, target, less, TIMES, 3)])
    if footprint is not None:
        rows += _footprint_rows(footprint)
    return _table(["Sevenfold", "got", "target", ""], rows) if rows else []


def _footprint_rows(footprint: Footprint) -> list[list[str]]:
    rows = []
    for title, starts in (("empty", footprint.first_starts), ("existing", footprint.later_starts)):
        seconds = statistics.median(starts) if starts else None
        rows.append([f"start to ready, {title} data folder", *_assessment(seconds, 6, True, " s", 1)])
    idle = footprint.idle_median if footprint.idle else None
    rows.append(["idle memory of API + worker (RSS)", *_assessment(idle.rss if idle else None, 160, True, " MB", 0)])
    if idle:
        rows.append(["the same, proportional (PSS)", f"{idle.pss:.0f} MB", "", ""])
    if footprint.after_load:
        got = f"{footprint.after_load.rss:.0f} MB RSS, {footprint.after_load.pss:.0f} MB PSS"
        rows.append(["5 s after the load of 50 in flight", got, "", ""])
    if footprint.not_run:
        rows.append(["start and memory", f"not run: {footprint.not_run}", "", ""])
    return rows


def suites_table(suites: list[Suite]) -> list[str]:
    """Return one row per figure of the suites: its median, in brackets the lowest and the highest round."""
    rows = []
    for suite in suites:
        if suite.figures:
            rows += [_suite_row(aim, suite.of(aim)) for aim in suite.aims]
        if suite.not_run:
            rows.append([suite.key, f"not run: {suite.not_run}", "", ""])
    return _table(["Jobs, tasks and streams", "got", "target", ""], rows)


def _suite_row(aim: Aim, values: list[float]) -> list[str]:
    median = statistics.median(values)
    spread = f"({min(values):.{aim.digits}f} to {max(values):.{aim.digits}f})"
    if aim.target is None:
        return [aim.title, f"{median:.{aim.digits}f}{aim.unit} {spread}", "", ""]
    got, target, met = _assessment(median, aim.target, aim.less, aim.unit, aim.digits)
    return [aim.title, f"{got} {spread}", target, met]


def circumstances(plan: Plan, noise: Noise | None) -> list[str]:
    """Return the lines that say where and how this was measured, and how quiet the machine was."""
    packages = {name: importlib.metadata.version(name) for name in ("temporalio", "fastapi", "uvicorn")}
    packages |= peers_versions()
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    lines = [
        f"{os.cpu_count()} cores ({_processor()}), {platform.system()}, Python {platform.python_version()}; "
        f"{versions}.",
        f"Medians of {plan.rounds} interleaved rounds ({plan.calls} requests one by one, then {plan.seconds:g} s "
        f"with {plan.in_flight} in flight), one contender loaded at a time; in brackets lowest and highest round. "
        "Ratios are taken within each round, then their median.",
    ]
    if noise is not None and noise.busy:
        median, most = statistics.median(noise.busy), max(noise.busy)
        lines.append(f"While all of them rested the machine was {median:.0%} busy (at most {most:.0%}).")
    return lines


def around_tables(document: Path) -> tuple[str, str]:
    """Return what stands before and after the tables in `document`; raise `ValueError` without its two markers."""
    text = document.read_text() if document.exists() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document} has no {BEGIN} … {END} to write between")
    return before, after


def rewrite(document: Path, lines: Iterable[str]) -> None:
    """Put `lines` between the two markers of `document`; raise `ValueError` if they are not there."""
    before, after = around_tables(document)
    document.write_text("\n".join([before + BEGIN, *lines, END + after]))


def _spread(contender: Contender, figure: Callable[[Turn], float], unit: str, digits: int) -> str:
    values = [figure(turn) for turn in contender.turns.values()]
    return f"{statistics.median(values):.{digits}f}{unit} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _assessment(value: float | None, target: float, less: bool, unit: str, digits: int) -> list[str]:
    aim = f"{'≤' if less else '≥'} {target:g}{unit}"
    if value is None:
        return ["not run", aim, ""]
    met = value <= target if less else value >= target
    return [f"{value:.{digits}f}{unit}", aim, "met" if met else "missed"]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [_row(head), _row(["---"] * len(head)), *map(_row, rows)]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
