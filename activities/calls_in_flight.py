"""The calls to agents that run in this process, so that an activity can take over what another one opened."""

import asyncio

import structlog

from activities.call_in_flight import CallInFlight, Publisher
from contracts.agent import Agent, AgentContext, AgentRequest

log = structlog.get_logger(__name__)

# How long an opened call waits for the activity that takes it over. Almost always that activity starts in this
# process with the answer to the workflow task (eager execution); when it was sent elsewhere instead, this call
# is a second one for the same run and has to end.
ADOPTION_SECONDS = 15.0

# A workflow task that the server refuses, because a signal came meanwhile, is done again within its timeout of 10
# seconds, and so are its local activities. So long, and for so many runs, an answer is kept for that.
REPETITION_SECONDS = 12.0
_MOST_ANSWERED = 500


class CallsInFlight:
    """The table of the running calls; of those that were opened and wait to be taken over, by run id; and of those
    that were answered in their opening, which may be done again.
    """

    def __init__(self, limit: int, *, adoption_seconds: float = ADOPTION_SECONDS) -> None:
        self._limit = limit
        self._adoption_seconds = adoption_seconds
        self._running: dict[str, CallInFlight] = {}
        self._opened: dict[str, tuple[CallInFlight, asyncio.TimerHandle]] = {}
        self._answered: dict[tuple[str, ...], tuple[CallInFlight, asyncio.TimerHandle]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def full(self) -> bool:
        """Whether as many calls run as may run activities: then a new one waits its turn as an activity."""
        return len(self._running) >= self._limit

    def start(self, agent: Agent, request: AgentRequest, context: AgentContext, publisher: Publisher) -> CallInFlight:
        """Begins a call. The caller awaits it, cancels it, or leaves it."""
        call = CallInFlight(agent, request, context, publisher)
        self._running[request.run_id] = call
        call.done.add_done_callback(lambda _: self._forget(request.run_id, call))
        return call

    def _forget(self, run_id: str, call: CallInFlight) -> None:
        if self._running.get(run_id) is call:
            del self._running[run_id]

    def running(self, run_id: str) -> CallInFlight | None:
        """The run's call, if it is made by this process."""
        return self._running.get(run_id)

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

    def keep_answered(self, opening: tuple[str, ...], call: CallInFlight) -> None:
        """Keeps a finished call for a while, by what names its opening and no other."""
        if len(self._answered) >= _MOST_ANSWERED:
            self._drop_answered(next(iter(self._answered)))
        timer = asyncio.get_running_loop().call_later(REPETITION_SECONDS, self._drop_answered, opening)
        self._answered[opening] = (call, timer)

    def answered(self, opening: tuple[str, ...]) -> CallInFlight | None:
        """The finished call of an opening that is done again."""
        call, _ = self._answered.get(opening, (None, None))
        return call

    def _drop_answered(self, opening: tuple[str, ...]) -> None:
        _, timer = self._answered.pop(opening, (None, None))
        if timer is not None:
            timer.cancel()

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
        for opening in list(self._answered):
            self._drop_answered(opening)
        calls = [self.take(run_id) for run_id in list(self._opened)]
        await asyncio.gather(*(call.cancel() for call in calls if call), *self._ending)
