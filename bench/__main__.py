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

from bench.accepting import ACCEPTING
from bench.brokers import BROKERS
from bench.codec import CODEC
from bench.contenders import Stage, all_contenders
from bench.events import EVENTS
from bench.footprint import Footprint, measure_footprint
from bench.harness import Contender, Noise, Plan, measure
from bench.hybrid import HYBRID
from bench.isolation import ISOLATION
from bench.jobs import AGAINST_LOOP, QUERY_BESIDE_JOB, THROUGHPUT
from bench.keys import KEYS
from bench.long_polls import LONG_POLLS
from bench.metrics import METRICS
from bench.openai import OPENAI
from bench.processes import REPOSITORY
from bench.quotas import QUOTAS
from bench.report import around_tables, circumstances, requests_table, rewrite, suites_table, targets_table
from bench.sevenfold import Ports
from bench.steps import STEPS_SUITE, WAITING_SUITE
from bench.streams import STREAMS, STREAMS_APART, STREAMS_REDIS
from bench.suite import Suite, run_suites
from bench.tenants import JOB_BESIDE_JOBS, QUERY_BESIDE_QUERIES, SLOW_QUERY_BESIDE_QUERIES
from bench.upstreams import UPSTREAMS
from bench.webhooks import WEBHOOKS

DOCUMENT = REPOSITORY / "docs" / "performance.md"
SUITES = [THROUGHPUT, AGAINST_LOOP, ACCEPTING, LONG_POLLS, QUERY_BESIDE_JOB]
SUITES += [
    STREAMS,
    STREAMS_APART,
    STREAMS_REDIS,
    WEBHOOKS,
    EVENTS,
    BROKERS,
    HYBRID,
    ISOLATION,
    UPSTREAMS,
    KEYS,
    QUOTAS,
    CODEC,
    METRICS,
    STEPS_SUITE,
    WAITING_SUITE,
    OPENAI,
]
SUITES += [JOB_BESIDE_JOBS, QUERY_BESIDE_QUERIES, SLOW_QUERY_BESIDE_QUERIES]
QUICK = Plan(rounds=2, calls=20, seconds=2)
LIMIT = 60 * 60  # seconds: a benchmark that hangs ends all the same


def main() -> None:
    """Parse the arguments, run, print, and write the document if asked to."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default 5)")
    parser.add_argument("--quick", action="store_true", help="two short rounds: a look, not a result")
    parser.add_argument("--only", action="append", metavar="NAME", help="a contender, a suite, footprint; repeatable")
    parser.add_argument("--address", metavar="HOST:PORT", help="Temporal server of the bare clients")
    parser.add_argument("--write", action="store_true", help=f"rewrite the tables in {DOCUMENT.name}")
    arguments = parser.parse_args()
    if arguments.write and (arguments.quick or arguments.only or arguments.address):
        parser.error("--write is for whole runs, without --quick, --only and --address")
    if arguments.write:
        try:
            around_tables(DOCUMENT)  # before twenty minutes are spent on figures that have no place to go
        except ValueError as error:
            parser.error(str(error))
    plan = QUICK if arguments.quick else Plan()
    if arguments.rounds:
        plan = replace(plan, rounds=arguments.rounds)
    work = Path(tempfile.mkdtemp(prefix="sevenfold-bench-"))
    ports = Ports.free()
    stage = Stage(work, ports, arguments.address or f"127.0.0.1:{ports.temporal}")
    contenders = all_contenders(stage)
    keys = [*(each.key for each in contenders), *(each.key for each in SUITES), "footprint"]
    only = arguments.only or keys
    if unknown := set(only) - set(keys):
        parser.error(f"--only knows {', '.join(keys)}; not {', '.join(sorted(unknown))}")
    contenders = [each for each in contenders if each.key in only]
    suites = [each for each in SUITES if each.key in only]
    try:
        lines = asyncio.run(_run(work, contenders, suites, "footprint" in only, plan))
    except asyncio.CancelledError:
        sys.exit("stopped")
    except TimeoutError:
        sys.exit(f"not finished after {LIMIT // 60} minutes")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print("\n".join(lines))
    if arguments.write:
        rewrite(DOCUMENT, lines)


async def _run(
    work: Path, contenders: list[Contender], suites: list[Suite], footprint: bool, plan: Plan
) -> list[str]:
    # SIGTERM unwinds like Ctrl-C: the children are stopped on the way out.
    if task := asyncio.current_task():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    measured: Footprint | None = None
    noise: Noise | None = None
    async with asyncio.timeout(LIMIT):
        if footprint:
            # First and alone: another contender's idle server would be in its way.
            measured = await measure_footprint(work, 2 if plan.rounds <= 2 else 5, plan.seconds, _print)
        if contenders:
            noise = await measure(contenders, plan, _print)
        # Last, when the contenders' servers are gone: a suite loads the whole machine.
        await run_suites(suites, work, plan.rounds, _print)
    lines = [""]
    if contenders:
        lines += [*requests_table(contenders, plan), ""]
    if targets := targets_table(contenders, measured):
        lines += [*targets, ""]
    if suites:
        lines += [*suites_table(suites), ""]
    return [*lines, *circumstances(plan, noise), ""]


def _print(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
