"""The hand-written minimum that Sevenfold is measured against: one workflow, one activity.

Written as a Temporal beginner would from the documentation. It lives in a file of its own because the workflow
sandbox loads the workflow's module again for every run: whatever else stood here would slow the bare client down.
"""

import asyncio
import json
import time
from datetime import timedelta
from pathlib import Path

from temporalio import activity, workflow


@activity.defn
async def answer(query: str) -> str:
    """Stand in for an agent that answers at once."""
    return "ok"


@activity.defn
async def record(message: str) -> str:
    """Note when the message was sent, and when this was called, in the file that it names."""
    found = json.loads(message)
    await asyncio.to_thread(_note, found["journal"], f"{found['sent']} {time.time()}\n")
    return "ok"


def _note(journal: str, line: str) -> None:
    with Path(journal).open("a") as lines:
        lines.write(line)


@workflow.defn
class BareRecord:
    """One workflow for a broker's message, with one regular activity."""

    @workflow.run
    async def run(self, message: str) -> str:
        """Return what the activity returns."""
        return await workflow.execute_activity(record, message, start_to_close_timeout=timedelta(seconds=10))


@workflow.defn
class Bare:
    """One workflow with one regular activity."""

    @workflow.run
    async def run(self, query: str) -> str:
        """Return what the activity returns."""
        return await workflow.execute_activity(answer, query, start_to_close_timeout=timedelta(seconds=10))


@workflow.defn
class BareLocal:
    """The same with a local activity: fewer events, no task queue in between."""

    @workflow.run
    async def run(self, query: str) -> str:
        """Return what the local activity returns."""
        return await workflow.execute_local_activity(answer, query, start_to_close_timeout=timedelta(seconds=10))
