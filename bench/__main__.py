"""`python -m bench` (`make bench`): Sevenfold beside the bare Temporal client and two peers, in one run."""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from bench.contenders import Stage, all_contenders
from bench.footprint import Footprint, measure_footprint
from bench.harness import Contender, Noise, Plan, measure
from bench.processes import REPOSITORY
from bench.report import around_tables, circumstances, requests_table, rewrite, targets_table
from bench.sevenfold import Ports

DOCUMENT = REPOSITORY / "docs" / "performance.md"
QUICK = Plan(rounds=2, calls=20, seconds=2)
LIMIT = 30 * 60  # seconds: a benchmark that hangs ends all the same


def main() -> None:
    """Parse the arguments, run, print, and write the document if asked to."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default 5)")
    parser.add_argument("--quick", action="store_true", help="two short rounds: a look, not a result")
    parser.add_argument("--only", action="append", metavar="NAME", help="a contender's key, or footprint; repeatable")
    parser.add_argument("--address", metavar="HOST:PORT", help="Temporal server of the bare clients")
    parser.add_argument("--write", action="store_true", help=f"rewrite the tables in {DOCUMENT.name}")
    arguments = parser.parse_args()
    if arguments.write and (arguments.quick or arguments.only or arguments.address):
        parser.error("--write is for whole runs, without --quick, --only and --address")
    if arguments.write:
        try:
            around_tables(DOCUMENT)  # before ten minutes are spent on figures that have no place to go
        except ValueError as error:
            parser.error(str(error))
    plan = QUICK if arguments.quick else Plan()
    if arguments.rounds:
        plan = replace(plan, rounds=arguments.rounds)
    work = Path(tempfile.mkdtemp(prefix="sevenfold-bench-"))
    ports = Ports.free()
    stage = Stage(work, ports, arguments.address or f"127.0.0.1:{ports.temporal}")
    contenders = all_contenders(stage)
    keys = [contender.key for contender in contenders]
    only = arguments.only or [*keys, "footprint"]
    if unknown := set(only) - {*keys, "footprint"}:
        parser.error(f"--only knows {', '.join([*keys, 'footprint'])}; not {', '.join(sorted(unknown))}")
    try:
        lines = asyncio.run(_run(work, [each for each in contenders if each.key in only], "footprint" in only, plan))
    except asyncio.CancelledError:
        sys.exit("stopped")
    except TimeoutError:
        sys.exit(f"not finished after {LIMIT // 60} minutes")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print("\n".join(lines))
    if arguments.write:
        rewrite(DOCUMENT, lines)


async def _run(work: Path, contenders: list[Contender], footprint: bool, plan: Plan) -> list[str]:
    # SIGTERM unwinds like Ctrl-C: the children are stopped on the way out.
    if task := asyncio.current_task():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    measured: Footprint | None = None
    noise: Noise | None = None
    async with asyncio.timeout(LIMIT):
        if footprint:
            # First and alone: another contender's idle server would be in its way.
            measured = await measure_footprint(work, 2 if plan.rounds <= 2 else 5, plan.seconds, _say)
        if contenders:
            noise = await measure(contenders, plan, _say)
    lines = [""]
    if contenders:
        lines += [*requests_table(contenders, plan), ""]
    lines += [*targets_table(contenders, measured), "", *circumstances(plan, noise), ""]
    return lines


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
