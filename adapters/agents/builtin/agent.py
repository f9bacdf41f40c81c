"""The built-in agent: offline and deterministic. It is not a language model."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from sevenfold.adapters.agents.builtin.customers import enrich_customer
from sevenfold.adapters.agents.builtin.documents import analyze_document, analyze_sentiment, summarize_text
from sevenfold.adapters.agents.builtin.fraud import detect_fraud
from sevenfold.adapters.agents.builtin.query import answer_query
from sevenfold.adapters.agents.builtin.report import generate_report
from sevenfold.adapters.agents.builtin.text import pieces
from sevenfold.adapters.agents.json_input import is_larger_than, one_line
from sevenfold.adapters.fairness import FairSlots
from sevenfold.contracts.agents.errors import AgentRejected
from sevenfold.contracts.agents.interface import AgentContext, AgentEvent, AgentRequest, Delta, Reply

Task = Callable[[AgentRequest], Reply]

TASKS: Mapping[str, Task] = {
    "query": answer_query,
    "analyze_sentiment": analyze_sentiment,
    "summarize": summarize_text,
    "generate_report": generate_report,
    "analyze_document": analyze_document,
    "enrich_customer": enrich_customer,
    "detect_fraud": detect_fraud,
}

# In characters and values. A text of this size takes 2 ms, the longest time that the event loop may be blocked. A
# thread costs 0.1 to 0.3 ms, more than a short text takes.
_THREAD_FROM = 2_000
_THREADS = 4


class BuiltinAgent:
    """Performs the tasks of `TASKS`. Equal requests have equal answers.

    Raises `AgentRejected`, with a pointer to the invalid field, for an unknown task or an unusable input; no JSON
    value makes it raise anything else. A cancellation leaves its thread running until it completes: a megabyte of
    text takes some seconds.
    """

    def __init__(self) -> None:
        # Not the event loop's own threads: megabytes in all of those would delay address lookups. Few threads,
        # because they share one interpreter.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="builtin-agent")
        self._slots = FairSlots(_THREADS)

    async def run(self, request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
        """Yields the response sentence by sentence, then the `Reply`."""
        task = TASKS.get(request.task)
        if task is None:
            known = ", ".join(TASKS)
            raise AgentRejected(
                f'The built-in agent has no task "{one_line(request.task, 64)}"; it has {known}.', pointer="/task"
            )
        if is_larger_than(request, _THREAD_FROM):
            reply = await self._run_in_thread(task, request, context.tenant)
        else:
            reply = task(request)
        for piece in pieces(reply.response):
            yield Delta(text=piece)
        yield reply

    async def _run_in_thread(self, task: Task, request: AgentRequest, tenant: str) -> Reply:
        """Runs the task when it is the tenant's turn. A slot is held until its thread is free again."""
        await self._slots.acquire(tenant)
        running = asyncio.get_running_loop().run_in_executor(self._threads, task, request)
        running.add_done_callback(self._release_slot)
        return await asyncio.shield(running)

    def _release_slot(self, ended: asyncio.Future[Reply]) -> None:
        self._slots.release()
        if not ended.cancelled():
            ended.exception()  # The call may have been cancelled meanwhile, and awaits it no more.
