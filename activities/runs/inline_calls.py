"""The calls to agents that run in this process, so that an activity can take over what another one opened."""

import asyncio

import structlog

from sevenfold.activities.runs.running_call import CallInFlight, CallPublisher
from sevenfold.contracts.agent import Agent, AgentContext, AgentRequest

log = structlog.get_logger(__name__)

# How long an opened call waits for the activity that takes it over. Almost always that activity starts in this
# process with the answer to the workflow task (eager execution); when it was sent elsewhere instead, this call
# is a second one for the same run and has to end.
ADOPTION_SECONDS = 15.0

# A workflow task that the server refuses, because a signal came meanwhile, is done again within its timeout of 10
# seconds, and so are its local activities. So long, and for so many runs, an answer is kept for that.
REPEAT_WINDOW_SECONDS = 12.0
_MAX_FINISHED = 500


class CallsInFlight:
    """The table of the running calls; of those that were opened and wait to be taken over, by run id; and of those
    that were answered in their opening, which may be done again.
    """

    def __init__(self, limit: int, *, adoption_seconds: float = ADOPTION_SECONDS) -> None:
        self._limit = limit
        self._adoption_seconds = adoption_seconds
        self._running: dict[str, CallInFlight] = {}
        self._parked: dict[str, tuple[CallInFlight, asyncio.TimerHandle]] = {}
        self._finished: dict[tuple[str, ...], tuple[CallInFlight, asyncio.TimerHandle]] = {}
        self._cancelling: set[asyncio.Task[None]] = set()

    @property
    def is_full(self) -> bool:
        """Whether as many calls run as may run activities: then a new one waits its turn as an activity."""
        return len(self._running) >= self._limit

    def start(
        self, agent: Agent, request: AgentRequest, context: AgentContext, publisher: CallPublisher
    ) -> CallInFlight:
        """Begins a call. The caller awaits it, cancels it, or leaves it."""
        call = CallInFlight(agent, request, context, publisher)
        self._running[request.run_id] = call
        call.done.add_done_callback(lambda _: self._forget(request.run_id, call))
        return call

    def _forget(self, run_id: str, call: CallInFlight) -> None:
        if self._running.get(run_id) is call:
            del self._running[run_id]

    def find_running(self, run_id: str) -> CallInFlight | None:
        """The run's call, if it is made by this process."""
        return self._running.get(run_id)

    def park(self, run_id: str, call: CallInFlight) -> None:
        """Lays a running call down for `adopt`; it is cancelled if nobody does."""
        timer = asyncio.get_running_loop().call_later(self._adoption_seconds, self._cancel_abandoned, run_id)
        self._parked[run_id] = (call, timer)

    def adopt(self, run_id: str) -> CallInFlight | None:
        """The call that was left for this run, if it is here."""
        call, timer = self._parked.pop(run_id, (None, None))
        if timer is not None:
            timer.cancel()
        return call

    def keep_finished(self, call_key: tuple[str, ...], call: CallInFlight) -> None:
        """Keeps a finished call for a while, by what names its opening and no other."""
        if len(self._finished) >= _MAX_FINISHED:
            self._drop_finished(next(iter(self._finished)))
        timer = asyncio.get_running_loop().call_later(REPEAT_WINDOW_SECONDS, self._drop_finished, call_key)
        self._finished[call_key] = (call, timer)

    def find_finished(self, call_key: tuple[str, ...]) -> CallInFlight | None:
        """The finished call of an opening that is done again."""
        call, _ = self._finished.get(call_key, (None, None))
        return call

    def _drop_finished(self, call_key: tuple[str, ...]) -> None:
        _, timer = self._finished.pop(call_key, (None, None))
        if timer is not None:
            timer.cancel()

    def _cancel_abandoned(self, run_id: str) -> None:
        call = self.adopt(run_id)
        if call is None:
            return
        log.warning("an opened call was not taken over here and is cancelled", run_id=run_id)
        cancellation = asyncio.create_task(call.cancel())
        self._cancelling.add(cancellation)
        cancellation.add_done_callback(self._cancelling.discard)

    async def close(self) -> None:
        """Cancels the calls that nobody took over; for the end of the process."""
        for call_key in list(self._finished):
            self._drop_finished(call_key)
        calls = [self.adopt(run_id) for run_id in list(self._parked)]
        await asyncio.gather(*(call.cancel() for call in calls if call), *self._cancelling)
