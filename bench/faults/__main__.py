"""`python -m bench.faults`: kill, stop and cut off the product's processes under load, and count what is lost."""

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import sevenfold
from bench.faults.campaign import PHASES, Campaign
from bench.faults.ledger import Ledger
from bench.faults.report import report

# For the last runs and the second look beyond the time that was asked for: what hangs ends all the same.
_OVERTIME = 180


def main() -> None:
    """Parse the arguments, run, print, and end with 1 if anything was lost or doubled."""
    names = [fault.name for phase in PHASES for fault in phase.faults]
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1_020, help="about how long (default 1020: 17 minutes)")
    parser.add_argument("--rate", type=float, default=6, help="runs started a second on average (default 6)")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="of moments, choices and order")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=f"repeatable: {', '.join(names)}")
    parser.add_argument("--report", type=Path, help="a file for the Markdown")
    parser.add_argument("--keep", action="store_true", help="keep logs and databases, and say where")
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - set(names):
        parser.error(f"--only knows {', '.join(names)}; not {', '.join(sorted(unknown))}")
    work = Path(tempfile.mkdtemp(prefix="sevenfold-faults-"))
    print(f"seed {arguments.seed}, product {Path(sevenfold.__file__).parent.parent}, work {work}", flush=True)
    campaign = Campaign(arguments.seconds, arguments.rate, arguments.seed, frozenset(arguments.only), work)
    began = time.monotonic()
    ledger = Ledger()
    unfinished = ""
    try:
        asyncio.run(_run(campaign, ledger))
    except (asyncio.CancelledError, KeyboardInterrupt):
        unfinished = "stopped before its end"
    except TimeoutError as error:
        unfinished = f"not finished in time: {error or 'the campaign as a whole'}"
    except Exception:
        # the report covers what was counted until then
        unfinished = traceback.format_exc()
    finally:
        if not arguments.keep:
            shutil.rmtree(work, ignore_errors=True)
    if unfinished:
        ledger.note(unfinished)
    minutes = (time.monotonic() - began) / 60
    summary = report(ledger, f"Seed {arguments.seed}, {arguments.rate:g} runs a second, {minutes:.1f} minutes.")
    print(f"\n{summary}")
    if arguments.report:
        arguments.report.write_text(summary, encoding="utf-8")
    sys.exit(1 if ledger.broken or unfinished else 0)


async def _run(campaign: Campaign, ledger: Ledger) -> None:
    # SIGTERM unwinds like Ctrl-C: the processes are stopped on the way out.
    if task := asyncio.current_task():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with asyncio.timeout(campaign.seconds + _OVERTIME):
        await campaign.run(ledger)


if __name__ == "__main__":
    main()
