"""Questions of agents, for clients that have no event for them: their stream ends, and shows where to answer."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress

from temporalio.service import RPCError

from sevenfold.api.http.problems import ProblemError
from sevenfold.api.runs.approval_desk import InputRequest, without_links
from sevenfold.api.runs.reader import RunReader
from sevenfold.api.streams.lines import StreamLine
from sevenfold.contracts.access.principals import Principal

# A run keeps its questions a moment after its stream has published them.
_LIMIT_SECONDS, _INTERVAL_SECONDS = 5.0, 0.2


async def with_silence(lines: AsyncGenerator[list[StreamLine]], seconds: float) -> AsyncIterator[list[StreamLine]]:
    """Yields the lines, and one more empty list, like a heartbeat, if there is no first line for this long."""
    reading = asyncio.ensure_future(anext(lines, None))
    timeout: float | None = seconds
    try:
        while True:
            done, _ = await asyncio.wait({reading}, timeout=timeout)
            if not done:
                timeout = None
                yield []
                continue
            if (found := reading.result()) is None:
                return
            reading = asyncio.ensure_future(anext(lines, None))
            yield found
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await lines.aclose()


async def load_open_requests(reader: RunReader, principal: Principal, run_id: str) -> list[InputRequest]:
    """Returns what a run asks now, with links: a run that nobody reads publishes no questions. Nothing if the run
    cannot be read at the moment: the stream continues.
    """
    with suppress(ProblemError, RPCError, asyncio.TimeoutError):
        questions = await reader.desk.read(await reader.find(principal.tenant, run_id))
        shown = reader.desk.show(principal.tenant, run_id, questions)
        return shown if principal.may_answer else without_links(shown)
    return []


async def find_open_requests(
    reader: RunReader, principal: Principal, run_id: str, *, is_latest: bool
) -> list[InputRequest]:
    """Returns what is asked, with links; nothing if it was answered before. `is_latest`: nothing follows the question
    in the stream yet.
    """
    waited = 0.0
    while is_latest and waited < _LIMIT_SECONDS:
        description = await reader.find(principal.tenant, run_id)
        if description.close_time is not None:
            return []
        questions = await reader.desk.read(description)
        if questions:  # these, or others that the run has asked since
            shown = reader.desk.show(principal.tenant, run_id, questions)
            return shown if principal.may_answer else without_links(shown)
        await asyncio.sleep(_INTERVAL_SECONDS)
        waited += _INTERVAL_SECONDS
    return []
