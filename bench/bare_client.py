"""Driving the bare workflow through `client.execute_workflow`: the bar that Sevenfold has to clear.

`DEFAULT` is what the documentation's quick start gives: default client, default worker, and the worker in a
process of its own, started by `python -m bench.bare_client ADDRESS QUEUE`. The client lives in the benchmark's
process, as a beginner's starter script would. Both in one process were no faster (medians of seven rounds on a
busy machine: 73 ms, against 62 ms in two), so the bar is not set low. The tuned variants are there for honesty:
they use what Sevenfold uses (no gzip, eager start, which needs client and worker in one process), without HTTP in
front.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from temporalio.client import Client
from temporalio.service import GrpcCompression
from temporalio.worker import Worker

from bench.bare_callback import BareCallback, call_back, work
from bench.bare_workflow import Bare, BareLocal, BareRecord, answer, record
from bench.processes import REPOSITORY, Child, until

Call = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Variant:
    """How the bare client is set up.

    `one_process` puts client and worker on one connection in the benchmark's process; `tuned` adds eager start
    and leaves gzip out; `local` calls the activity as a local one.
    """

    one_process: bool = False
    tuned: bool = False
    local: bool = False


DEFAULT = Variant()
ONE_PROCESS = Variant(one_process=True)
TUNED = Variant(one_process=True, tuned=True)
TUNED_LOCAL = Variant(one_process=True, tuned=True, local=True)


@contextlib.asynccontextmanager
async def open_bare(address: str, variant: Variant, logs: Path) -> AsyncIterator[Call]:
    """Yield a call that runs one workflow to its end, with a worker polling while the context is open."""
    queue = f"bench-{uuid.uuid4().hex[:8]}"
    client = await _connect(address, variant)
    run = BareLocal.run if variant.local else Bare.run

    async def call() -> None:
        result = await client.execute_workflow(
            run, "hi", id=str(uuid.uuid4()), task_queue=queue, request_eager_start=variant.tuned
        )
        if result != "ok":
            raise RuntimeError(f"the bare workflow answered {result!r}")

    async with contextlib.AsyncExitStack() as stack:
        if variant.one_process:
            await stack.enter_async_context(_worker(client, queue))
        else:
            worker = await stack.enter_async_context(bare_worker(address, queue, logs))
        # The first run ends when the worker polls: until then a measurement would time its start.
        await until(call, 30, "the bare worker", worker if not variant.one_process else None)
        yield call


@contextlib.asynccontextmanager
async def bare_worker(address: str, queue: str, logs: Path) -> AsyncIterator[Child]:
    """Run a default worker in a process of its own while the context is open."""
    argv = [sys.executable, "-m", "bench.bare_client", address, queue]
    worker = Child(argv, log=logs / f"bare-worker-{queue}.log", cwd=REPOSITORY)
    try:
        yield worker
    finally:
        await worker.stop()


async def _connect(address: str, variant: Variant) -> Client:
    if variant.tuned:
        return await Client.connect(address, grpc_compression=GrpcCompression.NONE)
    return await Client.connect(address)


def _worker(client: Client, queue: str) -> Worker:
    workflows = [Bare, BareLocal, BareCallback, BareRecord]
    return Worker(client, task_queue=queue, workflows=workflows, activities=[answer, work, call_back, record])


async def _serve(address: str, queue: str) -> None:
    """Run a default worker until SIGTERM, and leave it before the interpreter exits."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    client = await Client.connect(address)
    async with _worker(client, queue):
        await stop.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("queue")
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.address, arguments.queue))
