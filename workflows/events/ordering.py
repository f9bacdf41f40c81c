"""A lane: a subscription's events that take turns, in the order in which they were accepted."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

from sevenfold.activities.events.dispatch import EventDispatch
from sevenfold.contracts.events import AcquireInput, SemaphoreRequest, SemaphoreState, SignalInput

# The signals that tell an event that it is its turn, and ask a reaction whether it still goes on.
GRANT_SIGNAL = "grant"
PING_SIGNAL = "ping"

# So often it is asked whether those inside still live, since one that was terminated sends no `release`: at first,
# and less and less often while they do.
_MIN_CHECK_INTERVAL = timedelta(seconds=10)
_MAX_CHECK_INTERVAL = timedelta(seconds=60)

# An empty lane is kept for a moment: the next event may be on its way.
_LINGER_TIMEOUT = timedelta(seconds=5)


@workflow.defn(name="OrderingSemaphore")
class OrderingSemaphore:
    """Begins with the first event that enters, and ends when nobody is left."""

    @workflow.init
    def __init__(self, state: SemaphoreState) -> None:
        self._capacity = state.capacity
        self._waiting = list(state.waiting)
        self._holders = list(state.holders)
        # Since when they are inside: who has just come in is not asked, least of all in its first workflow task.
        self._held_since: dict[str, datetime] = {}
        self._change_count = 0
        # When those inside are checked next: a deadline that no news puts off. None while nobody is inside.
        self._check_at: datetime | None = None
        self._check_interval = _MIN_CHECK_INTERVAL

    @workflow.run
    async def run(self, state: SemaphoreState) -> None:
        """Lets events in, as many at once as there is room for."""
        while True:
            seen = self._change_count
            while self._waiting and len(self._holders) < self._capacity:
                await self._grant(self._waiting.pop(0))
            if not self._holders:
                self._check_at = None
            elif self._check_at is None:
                self._check_interval = _MIN_CHECK_INTERVAL
                self._check_at = workflow.now() + self._check_interval
            if not await self._wait_for_change(seen) and not self._holders and not self._waiting:
                return
            if self._check_at is not None and workflow.now() >= self._check_at:
                await self._release_dead_holders()
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(
                    SemaphoreState(capacity=self._capacity, waiting=self._waiting, holders=self._holders)
                )

    async def _release_dead_holders(self) -> None:
        """Forgets those that have ended without leaving."""
        for request in list(self._holders):
            since = self._held_since.get(request.event_workflow_id)
            if (since is None or workflow.now() - since >= _MIN_CHECK_INTERVAL) and not await _is_alive(request):
                self._remove(request.event_workflow_id)
        self._check_interval = min(2 * self._check_interval, _MAX_CHECK_INTERVAL)
        self._check_at = workflow.now() + self._check_interval if self._holders else None

    @workflow.signal(name="acquire", description="Events want their turn.")
    def acquire(self, batch: AcquireInput) -> None:
        """Sent by who accepted them, and by an event itself; the first one counts. The capacity is the latest's."""
        present = {request.event_workflow_id for request in (*self._waiting, *self._holders)}
        for request in batch.requests:
            self._capacity = request.semaphore.capacity
            if request.event_workflow_id not in present:
                self._waiting.append(request)
                present.add(request.event_workflow_id)
        self._change_count += 1

    @workflow.signal(name="release", description="An event is done; its workflow id.")
    def release(self, event_workflow_id: str) -> None:
        """Sent by the reaction at its end; also by hand, to let the next one in."""
        self._remove(event_workflow_id)
        self._change_count += 1

    async def _grant(self, request: SemaphoreRequest) -> None:
        self._holders.append(request)
        self._held_since[request.event_workflow_id] = workflow.now()
        if not await _signal(request.event_workflow_id, GRANT_SIGNAL, request.semaphore.id):
            self._remove(request.event_workflow_id)
        workflow.set_current_details(f"{len(self._holders)} inside, {len(self._waiting)} waiting.")

    async def _wait_for_change(self, seen: int) -> bool:
        """Waits for somebody to come or go, but not beyond the next check; False when nobody did."""
        timeout = _LINGER_TIMEOUT if self._check_at is None else max(self._check_at - workflow.now(), timedelta())
        try:
            await workflow.wait_condition(lambda: self._change_count != seen, timeout=timeout)
        except TimeoutError:
            return False
        return True

    def _remove(self, event_workflow_id: str) -> None:
        self._waiting = [request for request in self._waiting if request.event_workflow_id != event_workflow_id]
        self._holders = [request for request in self._holders if request.event_workflow_id != event_workflow_id]
        self._held_since.pop(event_workflow_id, None)


async def _is_alive(request: SemaphoreRequest) -> bool:
    """Whether the event still has to begin its reaction, or the reaction goes on."""
    if await _signal(request.event_workflow_id, GRANT_SIGNAL, request.semaphore.id):
        return True
    return await _signal(request.reaction_workflow_id, PING_SIGNAL)


async def _signal(workflow_id: str, signal: str, *arguments: str) -> bool:
    """False when there is no such workflow, or it has ended."""
    return await workflow.execute_local_activity_method(
        EventDispatch.signal_workflow,
        SignalInput(workflow_id=workflow_id, signal=signal, arguments=list(arguments)),
        start_to_close_timeout=timedelta(seconds=10),
        retry_policy=RetryPolicy(maximum_interval=timedelta(minutes=1)),
    )


async def release_semaphores(semaphore_ids: Iterable[str], event_workflow_id: str) -> None:
    """Tells lanes, by their workflow ids, that an event is done. A lane that is not there any more needs no word."""
    for semaphore_id in semaphore_ids:
        await _signal(semaphore_id, "release", event_workflow_id)
