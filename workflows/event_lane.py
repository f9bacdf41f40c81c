"""A lane: a subscription's events that take turns, in the order in which they were accepted."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

from activities.event_dispatch import EventDispatch
from contracts.events import LaneEntries, LaneEntry, LaneSignal, LaneState

# The signals that tell an event that it is its turn, and ask a reaction whether it still goes on.
TURN = "turn"
STILL_INSIDE = "still_inside"

# So often it is asked whether those inside still live, since one that was terminated sends no `leave`: at first, and
# less and less often while they do.
_FIRST_CHECK = timedelta(seconds=10)
_LONGEST_CHECK = timedelta(seconds=60)

# An empty lane is kept for a moment: the next event may be on its way.
_LINGERS = timedelta(seconds=5)


@workflow.defn
class EventLane:
    """Begins with the first event that enters, and ends when nobody is left."""

    @workflow.init
    def __init__(self, state: LaneState) -> None:
        self._capacity = state.capacity
        self._waiting = list(state.waiting)
        self._inside = list(state.inside)
        # Since when they are inside: who has just come in is not asked, least of all in its first workflow task.
        self._since: dict[str, datetime] = {}
        self._changes = 0
        # When those inside are checked next: a deadline that no news puts off. None while nobody is inside.
        self._check_at: datetime | None = None
        self._pause = _FIRST_CHECK

    @workflow.run
    async def run(self, state: LaneState) -> None:
        """Lets events in, as many at once as there is room for."""
        while True:
            seen = self._changes
            while self._waiting and len(self._inside) < self._capacity:
                await self._let_in(self._waiting.pop(0))
            if not self._inside:
                self._check_at = None
            elif self._check_at is None:
                self._pause = _FIRST_CHECK
                self._check_at = workflow.now() + self._pause
            if not await self._wait_for_change(seen) and not self._inside and not self._waiting:
                return
            if self._check_at is not None and workflow.now() >= self._check_at:
                await self._check_inside()
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(
                    LaneState(capacity=self._capacity, waiting=self._waiting, inside=self._inside)
                )

    async def _check_inside(self) -> None:
        """Forgets those that have ended without leaving."""
        for entry in list(self._inside):
            since = self._since.get(entry.event)
            if (since is None or workflow.now() - since >= _FIRST_CHECK) and not await _lives(entry):
                self._forget(entry.event)
        self._pause = min(2 * self._pause, _LONGEST_CHECK)
        self._check_at = workflow.now() + self._pause if self._inside else None

    @workflow.signal(description="Events want their turn.")
    def enter(self, entering: LaneEntries) -> None:
        """Sent by who accepted them, and by an event itself; the first one counts. The capacity is the latest's."""
        present = {entry.event for entry in (*self._waiting, *self._inside)}
        for entry in entering.entries:
            self._capacity = entry.lane.capacity
            if entry.event not in present:
                self._waiting.append(entry)
                present.add(entry.event)
        self._changes += 1

    @workflow.signal(description="An event is done; its workflow id.")
    def leave(self, event: str) -> None:
        """Sent by the reaction at its end; also by hand, to let the next one in."""
        self._forget(event)
        self._changes += 1

    async def _let_in(self, entry: LaneEntry) -> None:
        self._inside.append(entry)
        self._since[entry.event] = workflow.now()
        if not await _signalled(entry.event, TURN, entry.lane.id):
            self._forget(entry.event)
        workflow.set_current_details(f"{len(self._inside)} inside, {len(self._waiting)} waiting.")

    async def _wait_for_change(self, seen: int) -> bool:
        """Waits for somebody to come or go, but not beyond the next check; False when nobody did."""
        patience = _LINGERS if self._check_at is None else max(self._check_at - workflow.now(), timedelta())
        try:
            await workflow.wait_condition(lambda: self._changes != seen, timeout=patience)
        except TimeoutError:
            return False
        return True

    def _forget(self, event: str) -> None:
        self._waiting = [entry for entry in self._waiting if entry.event != event]
        self._inside = [entry for entry in self._inside if entry.event != event]
        self._since.pop(event, None)


async def _lives(entry: LaneEntry) -> bool:
    """Whether the event still has to begin its reaction, or the reaction goes on."""
    if await _signalled(entry.event, TURN, entry.lane.id):
        return True
    return await _signalled(entry.reaction, STILL_INSIDE)


async def _signalled(workflow_id: str, signal: str, *says: str) -> bool:
    """False when there is no such workflow, or it has ended."""
    return await workflow.execute_local_activity_method(
        EventDispatch.signal,
        LaneSignal(to=workflow_id, signal=signal, says=list(says)),
        start_to_close_timeout=timedelta(seconds=10),
        retry_policy=RetryPolicy(maximum_interval=timedelta(minutes=1)),
    )


async def leave_lanes(lanes: Iterable[str], event: str) -> None:
    """Tells lanes, by their workflow ids, that an event is done. A lane that is not there any more needs no word."""
    for lane in lanes:
        await _signalled(lane, "leave", event)
