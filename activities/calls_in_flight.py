"""The calls to agents that run in this process, so that an activity can take over what another one opened."""

import asyncio
from contextlib import suppress
from datetime import datetime

import structlog
from pydantic_core import PydanticSerializationError

from contracts.agent import Agent, AgentContext, AgentRequest, Delta, Progress, Reply
from contracts.verdicts import AgentRejected, AgentUnavailable

log = structlog.get_logger(__name__)

# How long an opened call waits for the activity that takes it over. Almost always that activity starts in this
# process with the answer to the workflow task (eager execution); when it was sent elsewhere instead, this call
# is a second one for the same run and has to end.
ADOPTION_SECONDS = 5.0

# What a cancelled agent may take for its own cleanup before we stop waiting for it.
CLEANUP_SECONDS = 10.0


class CallInFlight:
    """One running call. `done` resolves to the agent's reply or raises its error."""

    def __init__(self, agent: Agent, request: AgentRequest, deadline: datetime) -> None:
        self.attempt = request.attempt
        self.progress: Progress | None = None
        self._context = AgentContext(deadline=deadline)
        self.done = asyncio.create_task(self._drain(agent, request), name=f"agent call {request.run_id}")
        # Whoever awaits `done` gets its error; this only keeps asyncio from calling an abandoned one forgotten.
        self.done.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _drain(self, agent: Agent, request: AgentRequest) -> Reply:
        spoken: list[str] = []
        events = agent.run(request, self._context)
        try:
            async for event in events:
                match event:
                    case Delta(text=text):
                        spoken.append(text)
                    case Progress():
                        self.progress = event
                    case Reply():
                        return _whole(event, spoken)
        finally:
            aclose = getattr(events, "aclose", None)
            if aclose is not None:
                await aclose()
        raise AgentUnavailable("The agent broke off before its reply.")

    async def cancel(self) -> None:
        """Ends the call and waits for the agent's own cleanup, within bounds."""
        self._context.cancelled.set()
        self.done.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait({self.done}, timeout=CLEANUP_SECONDS)


def _whole(reply: Reply, spoken: list[str]) -> Reply:
    """The reply, with what was streamed as its response unless it has one. Raises AgentRejected for a reply that
    cannot be written down: every attempt would fail on it, later and less clearly.
    """
    whole: Reply = reply if reply.response else reply.model_copy(update={"response": "".join(spoken)})
    try:
        whole.model_dump_json()
    except PydanticSerializationError as error:
        raise AgentRejected("The agent's reply holds text that is not valid Unicode.") from error
    return whole


class CallsInFlight:
    """The table of opened calls that wait to be taken over, by run id."""

    def __init__(self, limit: int, *, adoption_seconds: float = ADOPTION_SECONDS) -> None:
        self._limit = limit
        self._adoption_seconds = adoption_seconds
        self._running = 0
        self._opened: dict[str, tuple[CallInFlight, asyncio.TimerHandle]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def full(self) -> bool:
        """Whether as many calls run as may run activities: then a new one waits its turn as an activity."""
        return self._running >= self._limit

    def start(self, agent: Agent, request: AgentRequest, deadline: datetime) -> CallInFlight:
        """Begins a call. The caller awaits it, cancels it, or leaves it."""
        call = CallInFlight(agent, request, deadline)
        self._running += 1
        call.done.add_done_callback(self._count_down)
        return call

    def _count_down(self, _: object) -> None:
        self._running -= 1

    def leave(self, run_id: str, call: CallInFlight) -> None:
        """Lays a running call down for `take`; it is cancelled if nobody does."""
        timer = asyncio.get_running_loop().call_later(self._adoption_seconds, self._give_up, run_id)
        self._opened[run_id] = (call, timer)

    def take(self, run_id: str) -> CallInFlight | None:
        """The call that was left for this run, if it is here."""
        call, timer = self._opened.pop(run_id, (None, None))
        if timer is not None:
            timer.cancel()
        return call

    def _give_up(self, run_id: str) -> None:
        call = self.take(run_id)
        if call is None:
            return
        log.warning("an opened call was not taken over here and is cancelled", run_id=run_id)
        ending = asyncio.create_task(call.cancel())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """Cancels the calls that nobody took over; for the end of the process."""
        calls = [self.take(run_id) for run_id in list(self._opened)]
        await asyncio.gather(*(call.cancel() for call in calls if call), *self._ending)
