"""`python -m bench.fuzz`: hostile inputs for the product, as processes of its own, on loopback alone.

The exit code is 1 if anything answered 5xx that is no agent's failure, hung, stalled the process for over 0.3 s, or
was not well in the end. The same seed makes the same cases: `--only GROUP --first N --cases 1` runs one again.
"""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from random import SystemRandom

import sevenfold
from bench.fuzz import agents, bodies, cloudevents, filters, headers, queries, sockets, webhooks, websocket_messages
from bench.fuzz.campaign import Campaign, GroupPlan, run_group
from bench.fuzz.ledger import Fault
from bench.fuzz.product import Product, complaints, known_objects, running
from bench.fuzz.report import findings, stalls, table
from bench.fuzz.schema import GROUP as SCHEMA
from bench.fuzz.schema import run_schemathesis
from bench.fuzz.upstream import agents_config, scripted_server
from bench.fuzz.watch import watched

CASES = 20_200
LIMIT = 20 * 60  # seconds: a campaign that hangs ends all the same
_SCHEMA_SHARE = 0.04
_SCHEMA_SECONDS = 45.0

GROUPS = (
    GroupPlan("bodies", bodies.run, 0.27),
    GroupPlan("cloudevents", cloudevents.run, 0.16),
    GroupPlan("queries", queries.run, 0.23),
    GroupPlan("headers", headers.run, 0.13),
    GroupPlan("sockets", sockets.run, 0.08, at_once=sockets.HANGING),
    GroupPlan("websocket", websocket_messages.run, 0.04),
    GroupPlan("agents", agents.run, 0.03, at_once=24),
    GroupPlan("webhooks", webhooks.run, 0.03),
    GroupPlan("filters", filters.run, 0.03, at_once=12),
)


def main() -> None:
    """Parses the arguments, runs the campaign, prints what was found."""
    names = [SCHEMA, *(plan.name for plan in GROUPS)]
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=CASES, help=f"of all groups together (default {CASES})")
    parser.add_argument("--seed", type=int, help="as an earlier campaign printed it")
    parser.add_argument("--only", action="append", choices=names, help="a group; repeatable")
    parser.add_argument("--first", type=int, default=0, help="the number of each group's first case")
    parser.add_argument("--report", type=Path, help="a file for the Markdown")
    parser.add_argument("--keep", action="store_true", help="keep the product's directory and log, and say where")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else SystemRandom().randrange(10**6)
    work = Path(tempfile.mkdtemp(prefix="sevenfold-fuzz-"))
    print(f"seed {seed}, product {Path(sevenfold.__file__).parent.parent}, work {work}", flush=True)
    try:
        lines, well = asyncio.run(_run(work, arguments, seed))
    except asyncio.CancelledError:
        sys.exit("stopped")
    finally:
        if not arguments.keep:
            shutil.rmtree(work, ignore_errors=True)
    print("\n".join(["", *lines]))
    if arguments.report:
        arguments.report.write_text("\n".join([*lines, ""]), encoding="utf-8")
    sys.exit(0 if well else 1)


async def _run(work: Path, arguments: argparse.Namespace, seed: int) -> tuple[list[str], bool]:
    """The report's lines, and whether all is well."""
    # SIGTERM unwinds like Ctrl-C: the processes are stopped on the way out.
    if task := asyncio.current_task():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    started_at = time.monotonic()
    campaign = Campaign(port=0, seed=seed)
    ledger = campaign.ledger
    async with scripted_server(campaign.scripts) as receiver, running(work, agents_config(receiver)) as product:
        campaign.port, campaign.receiver_port = product.port, receiver
        campaign.known = await known_objects(product.port, receiver)
        async with watched(product.port, product.process.pid) as probes:
            try:
                async with asyncio.timeout(LIMIT):
                    await _all_groups(campaign, product, arguments)
            except TimeoutError:
                ledger.faults.append(Fault("the campaign", f"did not end within {LIMIT / 60:g} minutes"))
        unwell = await complaints(product, campaign)
        memory, causes = product.memory(), product.causes()
    cases = sum(group.cases for group in ledger.groups.values())
    state = "It was well in the end." if not unwell else "NOT WELL in the end: " + "; ".join(unwell)
    summary = f"{cases:,} cases in {time.monotonic() - started_at:.0f} s, seed {seed}; the product: {memory}. {state}"
    well = not (unwell or ledger.faults or probes.failed or stalls(probes))
    return [summary, "", *table(ledger, probes), *findings(ledger, probes, causes)], well


async def _all_groups(campaign: Campaign, product: Product, arguments: argparse.Namespace) -> None:
    only = arguments.only or [SCHEMA, *(plan.name for plan in GROUPS)]
    plans = [plan for plan in GROUPS if plan.name in only]
    shares = sum(plan.share for plan in plans) + (_SCHEMA_SHARE if SCHEMA in only else 0.0)
    if SCHEMA in only:
        _print("schemathesis", product)
        cases = max(1, round(arguments.cases * _SCHEMA_SHARE / shares))
        why = await run_schemathesis(campaign, cases, _SCHEMA_SECONDS)
        if why is not None:
            _print(f"schemathesis was left out: {why}", product)
    for plan in plans:
        _print(plan.name, product)
        await run_group(campaign, plan, arguments.first, max(1, round(arguments.cases * plan.share / shares)))
        if not product.process.is_running:
            campaign.ledger.faults.append(Fault("the process has ended", f"during {plan.name}"))
            return


def _print(line: str, product: Product) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line} ({product.memory()})", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
