"""Ordering semaphore: admits the events of one subscription and ordering key in the order of their acceptance."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.workflow import ContinueAsNewVersioningBehavior

from sevenfold.activities.events.dispatch import EventDispatch
from sevenfold.contracts import workflow_types
from sevenfold.contracts.events.event_driven import AcquireInput, SemaphoreRequest, SemaphoreState, SignalInput

# Signals to an event that it holds the semaphore, and to a reaction to check that it is still open.
GRANT_SIGNAL = "grant"
PING_SIGNAL = "ping"

# A holder that was terminated sends no `release`. So the semaphore checks its holders: first after 10 s, then at
# doubling intervals of up to 60 s.
_MIN_CHECK_INTERVAL = timedelta(seconds=10)
_MAX_CHECK_INTERVAL = timedelta(seconds=60)

# An empty semaphore stays open this long, because the next event may follow.
_LINGER_TIMEOUT = timedelta(seconds=5)


@workflow.defn(name=workflow_types.ORDERING_SEMAPHORE)
class OrderingSemaphore:
    """Starts with the first event that acquires it and completes when no event holds it or waits for it. At most
    `capacity` events hold it at once.
    """

    @workflow.init
    def __init__(self, state: SemaphoreState) -> None:
        self._capacity = state.capacity
        self._waiting = list(state.waiting)
        self._holders = list(state.holders)
        # Start of each hold. A new holder is not checked for `_MIN_CHECK_INTERVAL`: its first workflow task may still
        # run.
        self._held_since: dict[str, datetime] = {}
        self._change_count = 0
        # Time of the next check. Changes do not postpone it. None while there are no holders.
        self._check_at: datetime | None = None
        self._check_interval = _MIN_CHECK_INTERVAL

    @workflow.run
    async def run(self, state: SemaphoreState) -> None:
        """Grants the semaphore in order of acquisition, up to the capacity."""
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
            if _is_renewal_due():
                workflow.continue_as_new(
                    SemaphoreState(capacity=self._capacity, waiting=self._waiting, holders=self._holders),
                    initial_versioning_behavior=ContinueAsNewVersioningBehavior.AUTO_UPGRADE,
                )

    async def _release_dead_holders(self) -> None:
        """Removes the holders whose workflows ended without a release."""
        for request in list(self._holders):
            since = self._held_since.get(request.event_workflow_id)
            if (since is None or workflow.now() - since >= _MIN_CHECK_INTERVAL) and not await _is_alive(request):
                self._remove(request.event_workflow_id)
        self._check_interval = min(2 * self._check_interval, _MAX_CHECK_INTERVAL)
        self._check_at = workflow.now() + self._check_interval if self._holders else None

    @workflow.signal(name="acquire", description="Events acquire the semaphore.")
    def acquire(self, batch: AcquireInput) -> None:
        """Sent by the ingest and by an event itself; the first acquisition of an event counts. The latest capacity
        counts.
        """
        present = {request.event_workflow_id for request in (*self._waiting, *self._holders)}
        for request in batch.requests:
            self._capacity = request.semaphore.capacity
            if request.event_workflow_id not in present:
                self._waiting.append(request)
                present.add(request.event_workflow_id)
        self._change_count += 1

    @workflow.signal(name="release", description="Releases the semaphore. The argument is the event's workflow id.")
    def release(self, event_workflow_id: str) -> None:
        """Sent by the reaction at its end; also by hand, to admit the next event."""
        self._remove(event_workflow_id)
        self._change_count += 1

    async def _grant(self, request: SemaphoreRequest) -> None:
        self._holders.append(request)
        self._held_since[request.event_workflow_id] = workflow.now()
        if not await _signal(request.event_workflow_id, GRANT_SIGNAL, request.semaphore.id):
            self._remove(request.event_workflow_id)
        workflow.set_current_details(f"{len(self._holders)} holders, {len(self._waiting)} waiting.")

    async def _wait_for_change(self, seen: int) -> bool:
        """Waits for an acquire or a release, at most until the next check. Returns False if there was none."""
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


def _is_renewal_due() -> bool:
    """Whether the history is long, or another build gets new runs: a semaphore is on the queue of events, whose runs
    end on their build, but one that is always held would never end.
    """
    info = workflow.info()
    return info.is_continue_as_new_suggested() or info.is_target_worker_deployment_version_changed()


async def _is_alive(request: SemaphoreRequest) -> bool:
    """Whether the event has still to start its reaction, or the reaction is open."""
    if await _signal(request.event_workflow_id, GRANT_SIGNAL, request.semaphore.id):
        return True
    return await _signal(request.reaction_workflow_id, PING_SIGNAL)


async def _signal(workflow_id: str, signal: str, *arguments: str) -> bool:
    """Returns False if the workflow does not exist or has ended."""
    return await workflow.execute_local_activity_method(
        EventDispatch.signal_workflow,
        SignalInput(workflow_id=workflow_id, signal=signal, arguments=list(arguments)),
        start_to_close_timeout=timedelta(seconds=10),
        retry_policy=RetryPolicy(maximum_interval=timedelta(minutes=1)),
    )


async def release_semaphores(semaphore_ids: Iterable[str], event_workflow_id: str) -> None:
    """Releases semaphores, by their workflow ids. A semaphore that has completed needs no signal."""
    for semaphore_id in semaphore_ids:
        await _signal(semaphore_id, "release", event_workflow_id)
