"""Runs the workflow of this directory: `python research/worker.py`, beside `make run`."""

import asyncio
import os

from temporalio.client import Client
from temporalio.worker import Worker
from workflow import Research, look_up


async def main() -> None:
    """Until it is stopped."""
    client = await Client.connect(os.environ.get("TEMPORAL_ADDRESS", "127.0.0.1:7233"))
    async with Worker(client, task_queue="research", workflows=[Research], activities=[look_up]):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
