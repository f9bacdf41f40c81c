"""The agent calls of this process, which one activity starts inline and another one adopts."""

import asyncio
from collections.abc import Callable

import structlog

from sevenfold.activities.runs.call_publisher import CallPublisher
from sevenfold.activities.runs.call_span import CallSpan
from sevenfold.activities.runs.durable_call import RunDurableCall
from sevenfold.activities.runs.running_call import CallInFlight
from sevenfold.activities.runs.spending import Spending
from sevenfold.adapters.fairness import TenantShares
from sevenfold.contracts.agents.interface import Agent, AgentContext, AgentRequest, Progress
from sevenfold.contracts.agents.steps import StreamMark

log = structlog.get_logger(__name__)

# How long a parked call waits for its adoption. The adopting activity nearly always starts in this process, with the
# response to the workflow task (eager execution). If the server dispatches it elsewhere, the parked call is a second
# call for the same run and must end.
ADOPTION_SECONDS = 15.0

# The server rejects the completion of a workflow task if a signal arrived meanwhile. The task and its local
# activities are then repeated within its time-out of 10 s. The answers of up to 500 calls are kept for 12 s for that.
REPEAT_WINDOW_SECONDS = 12.0
_MAX_FINISHED = 500


class CallsInFlight:
    """The agent calls of one worker process: running, parked for adoption, or finished and kept for a repetition.

    How a call runs: `AgentRun` (workflows/runs/agent_call.py) requests the local activity `start_call_inline`. That
    starts the call and waits for at most `SEVENFOLD_INLINE_START_SECONDS` (0.5 s; a streamed call: not at all). If
    the reply is there, it is the result. Otherwise the call is parked, the workflow schedules the activity
    `call_agent`, and that activity adopts the same call and sends its heartbeats.

    States of a call: running → finished (kept for 12 s); running → parked → adopted by `call_agent`; or running →
    parked → cancelled after 15 s. The first step or question of a durable agent ends the wait at once. All methods
    run on the event loop, so they need no lock.

    Guarantee: at least once. Each attempt calls the agent once, unless a worker or its connection to Temporal is
    lost: then the agent may be called again. A result that Temporal has recorded is never requested again.

    What happens on each loss:

    - The worker dies before the start: the workflow task is repeated elsewhere after its time-out of 10 s. One call.
    - It dies while the call runs inline: the same, and the agent is called again as attempt 1. A streamed run makes
      no inline start later than 2 s after its own start; there `call_agent` makes attempt 2 and resets the stream.
    - It dies while the call is parked: `call_agent` starts elsewhere, finds no call (`started_inline` states that
      there was one) and makes attempt 2.
    - It dies after the adoption: the heartbeats stop; after 10 s Temporal retries `call_agent` as the next attempt.
    - The server dispatches `call_agent` to another process: that makes attempt 2, and the parked call is cancelled
      after 15 s.
    - The workflow task is repeated in this process: `start_call_inline` finds the finished call or the parked call.
    - The run is cancelled: `start_call_inline` or `call_agent` cancels the call, which may take up to 10 s for the
      agent's cleanup. A parked call that is not adopted any more is cancelled after 15 s.
    - The process stops: `close` cancels the parked calls; adopted calls have the worker's grace period.
    """

    def __init__(self, limit: int, *, adoption_seconds: float = ADOPTION_SECONDS) -> None:
        self._limit = limit
        self._shares = TenantShares(limit)
        self._adoption_seconds = adoption_seconds
        self._running: dict[str, CallInFlight] = {}
        self._parked: dict[str, tuple[CallInFlight, asyncio.TimerHandle]] = {}
        self._finished: dict[tuple[str, ...], tuple[CallInFlight, asyncio.TimerHandle]] = {}
        self._cancelling: set[asyncio.Task[None]] = set()

    def has_room(self, tenant: str) -> bool:
        """Whether the tenant may start a call inline: the limit of running calls is not reached, and the tenant has
        calls left of its share. Otherwise a new call waits for an activity slot, which Temporal gives to the tenants
        in turns.
        """
        return len(self._running) < self._limit and self._shares.has_room(tenant)

    def start(
        self,
        agent: Agent,
        request: AgentRequest,
        context: AgentContext,
        publisher: CallPublisher,
        report_progress: Callable[[Progress], None] | None,
        spending: Spending,
        span: CallSpan | None,
        *,
        name: str,
        durable: Callable[[Callable[[], StreamMark | None]], RunDurableCall],
    ) -> CallInFlight:
        """Starts a call of the agent of this name. The caller awaits it, cancels it, or parks it."""
        call = CallInFlight(
            agent, request, context, publisher, report_progress, spending, span, name=name, durable=durable
        )
        self._running[request.run_id] = call
        self._shares.add(context.tenant)
        call.done.add_done_callback(lambda _: self._forget(request.run_id, context.tenant, call))
        return call

    def _forget(self, run_id: str, tenant: str, call: CallInFlight) -> None:
        self._shares.remove(tenant)
        if self._running.get(run_id) is call:
            del self._running[run_id]

    def find_running(self, run_id: str) -> CallInFlight | None:
        """Returns the run's call if it runs in this process."""
        return self._running.get(run_id)

    def park(self, run_id: str, call: CallInFlight) -> None:
        """Parks a running call for `adopt`. It is cancelled if no activity adopts it within the adoption time-out."""
        timer = asyncio.get_running_loop().call_later(self._adoption_seconds, self._cancel_abandoned, run_id)
        self._parked[run_id] = (call, timer)

    def adopt(self, run_id: str) -> CallInFlight | None:
        """Removes and returns the parked call of this run; None if it is not in this process."""
        call, timer = self._parked.pop(run_id, (None, None))
        if timer is not None:
            timer.cancel()
        return call

    def keep_finished(self, call_key: tuple[str, ...], call: CallInFlight) -> None:
        """Keeps a finished call for 12 s. `call_key` identifies one inline start."""
        if len(self._finished) >= _MAX_FINISHED:
            self._drop_finished(next(iter(self._finished)))
        timer = asyncio.get_running_loop().call_later(REPEAT_WINDOW_SECONDS, self._drop_finished, call_key)
        self._finished[call_key] = (call, timer)

    def find_finished(self, call_key: tuple[str, ...]) -> CallInFlight | None:
        """Returns the finished call of an inline start that is repeated."""
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
        log.warning("a parked call was not adopted in this process and is cancelled", run_id=run_id)
        cancellation = asyncio.create_task(call.cancel())
        self._cancelling.add(cancellation)
        cancellation.add_done_callback(self._cancelling.discard)

    async def close(self) -> None:
        """Cancels the parked calls when the process stops."""
        for call_key in list(self._finished):
            self._drop_finished(call_key)
        calls = [self.adopt(run_id) for run_id in list(self._parked)]
        await asyncio.gather(*(call.cancel() for call in calls if call), *self._cancelling)
