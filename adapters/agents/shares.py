"""This process's share in an agent's limits: asked for now and then, so that most calls ask nobody.

`AgentLimits` divides the limits between the processes; here the share is handed out to calls, in their order.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog
from temporalio.client import WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.service import RPCError

from adapters.cancellation import raise_if_cancelled
from contracts.limits import SHARE_SECONDS, Limits, ShareAsk, ShareGrant
from contracts.verdicts import AgentBusy

log = structlog.get_logger(__name__)

Ask = Callable[[ShareAsk], Awaitable[ShareGrant]]

# Between two questions: as a rule; while more is wanted; and at least.
_RENEWED_AFTER, _WANTING_PAUSE, _SHORTEST_PAUSE = 2.0, 0.5, 0.1

# A share of which nobody has taken for so long is not asked for any more, and so lapses.
_IDLE_AFTER = 5.0

# So many of a second's calls may begin at once.
_BURST = 0.1

_SHORTEST_RETRY, _LONGEST_RETRY = 1.0, 30.0
_CROWD_SECONDS = 10.0

# A call that is begun with the last of a share is still on its way when the share lapses.
_MARGIN = 1.0
_LEARNING = 0.2


class AgentShare:
    """The share in one agent's limits."""

    def __init__(self, process: str, limits: Limits, ask: Ask) -> None:
        self._process = process
        self._limits = limits
        self._ask = ask
        self._slots, self._keep, self._rate = 0, 0, 0.0
        self._good_until = 0.0
        self._busy = 0
        self._tokens, self._filled_at = 0.0, 0.0
        # Calls that wait for a while and then go; and the items of lists, which wait as long as it takes.
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._items: deque[asyncio.Future[None]] = deque()
        self._item_is_next = False
        self._crowd: deque[float] = deque()
        self._call_seconds: float | None = None  # on average, once a call has ended
        self._used_at = 0.0
        self._keeper: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def taken_at_once(self) -> bool:
        """Takes a place if what this process holds has one."""
        self._used_at = time.monotonic()
        if self._waiting or self._items or not self._free():
            return False
        self._take()
        return True

    async def taken(self, patience: float | None) -> None:
        """Takes a place, when it is this call's turn. Raises AgentBusy after `patience` seconds (None: waits as long
        as it takes), or at once where that will not do.
        """
        if self.taken_at_once():
            return
        self._news.set()
        if patience is not None and self._expected_wait() > patience:
            raise self._refusal()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._items if patience is None else self._waiting
        queue.append(turn)
        self._ask_on()
        self._serve()
        try:
            async with asyncio.timeout(patience):
                await turn
        except BaseException as error:
            if turn.cancelled():
                with suppress(ValueError):  # passed over already
                    queue.remove(turn)
            else:  # its turn came in that very moment
                self.unused()
            if isinstance(error, TimeoutError):
                raise self._refusal() from None
            raise

    def released(self, seconds: float) -> None:
        """Gives back the place of a call that took so long."""
        self._busy -= 1
        self._used_at = time.monotonic()
        if seconds:
            before = seconds if self._call_seconds is None else self._call_seconds
            self._call_seconds = before + _LEARNING * (seconds - before)
        if self._slots > self._keep:  # others wait for it
            self._slots -= 1
            self._news.set()
        self._serve()

    def unused(self) -> None:
        """Gives back the place of a call that was not made."""
        if self._limits.rate is not None:
            self._tokens += 1
        self.released(0.0)

    async def aclose(self) -> None:
        """Asks no more; what is held lapses."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    def _free(self) -> bool:
        if time.monotonic() >= self._good_until:
            return False
        if self._limits.max_concurrency is not None and self._busy >= self._slots:
            return False
        return self._limits.rate is None or self._filled() >= 1

    def _filled(self) -> float:
        """The tokens there are: each lets one call begin."""
        now = time.monotonic()
        most = max(1.0, self._rate * _BURST)
        self._tokens = min(most, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        return self._tokens

    def _take(self) -> None:
        self._busy += 1
        if self._limits.rate is not None:
            self._tokens -= 1
        self._ask_on()

    def _ask_on(self) -> None:
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep_share())

    def _serve(self) -> None:
        """Hands out what is free, in the order in which it was asked for, items and other calls in turn."""
        while (self._waiting or self._items) and self._free():
            from_items = bool(self._items) and (self._item_is_next or not self._waiting)
            turn = (self._items if from_items else self._waiting).popleft()
            if not turn.done():
                self._item_is_next = not from_items
                self._take()
                turn.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waits = self._waiting or self._items
        if waits and self._limits.rate is not None and self._rate > 0 and self._tokens < 1:
            self._timer = asyncio.get_running_loop().call_later((1 - self._tokens) / self._rate, self._serve)

    def _pace(self) -> float:
        """Calls a second, as this process gets along; 0 when it does not know yet."""
        paces = []
        if self._limits.max_concurrency is not None and self._call_seconds is not None:
            paces.append(self._slots / max(self._call_seconds, 0.001))
        if self._limits.rate is not None:
            paces.append(self._rate)
        return min(paces, default=0.0)

    def _expected_wait(self) -> float:
        pace = self._pace() / (2 if self._items else 1)
        return (len(self._waiting) + 1) / pace if pace and time.monotonic() < self._good_until else 0.0

    def _turned_away(self) -> int:
        """How many were refused lately; they come again."""
        now = time.monotonic()
        while self._crowd and now - self._crowd[0] > _CROWD_SECONDS:
            self._crowd.popleft()
        return len(self._crowd)

    def _refusal(self) -> AgentBusy:
        """All who were refused lately come back: each is told to wait for about as long as all of them will take."""
        self._crowd.append(time.monotonic())
        self._ask_on()
        pace = self._pace()
        seconds = (len(self._waiting) + self._turned_away()) / pace if pace else _SHORTEST_RETRY
        bounded = min(_LONGEST_RETRY, max(_SHORTEST_RETRY, seconds))
        return AgentBusy("The agent has as many calls as it may.", retry_after=bounded * random.uniform(0.7, 1.3))

    async def _keep_share(self) -> None:
        """Asks for the share as long as it is used."""
        while self._busy or self._wanted() or time.monotonic() - self._used_at < _IDLE_AFTER:
            self._news.clear()
            await self._renew()
            self._serve()
            await asyncio.sleep(_SHORTEST_PAUSE)
            try:
                async with asyncio.timeout(self._pause()):
                    await self._news.wait()
            except TimeoutError:
                pass

    def _wanted(self) -> int:
        """How many more calls could be made now."""
        return len(self._waiting) + len(self._items) + self._turned_away()

    def _pause(self) -> float:
        if not self._wanted():
            return _RENEWED_AFTER
        slots_full = self._limits.max_concurrency is None or self._slots >= self._limits.max_concurrency
        rate_full = self._limits.rate is None or self._rate >= 0.99 * self._limits.rate
        return _RENEWED_AFTER if slots_full and rate_full else _WANTING_PAUSE

    async def _renew(self) -> None:
        asked_at = time.monotonic()
        ask = ShareAsk(
            process=self._process,
            limits=self._limits,
            # until the answer comes, all of the share may be taken; and the answer may be lost
            busy=max(self._busy, self._slots if asked_at < self._good_until else 0),
            wanted=self._busy + self._wanted(),
            calls=bool(self._wanted()) or asked_at - self._used_at < _IDLE_AFTER,
        )
        try:
            grant = await self._ask(ask)
        except (RPCError, WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError) as error:
            raise_if_cancelled()
            log.warning("a share in an agent's limits could not be had", error=str(error))
            return
        self._keep = grant.keep
        self._slots = max(self._busy, min(grant.slots, grant.keep))
        if self._slots < grant.slots:
            self._news.set()  # what was given back is told
        if self._limits.rate is not None:
            self._tokens = self._filled() if self._rate or not grant.rate else 1.0
            self._rate = grant.rate
        self._good_until = asked_at + SHARE_SECONDS - _MARGIN
