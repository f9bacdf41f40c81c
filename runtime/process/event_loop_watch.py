"""Watches the event loop: how late it is, what blocks it, and when it is beyond help."""

import asyncio
import os
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from sevenfold.adapters.agents.error_boundary import find_agent
from sevenfold.adapters.agents.places import find_place
from sevenfold.adapters.metrics.process import LOOP_LAG

log = structlog.get_logger(__name__)

_BEAT_SECONDS = 0.25
# The metric is the longest delay within so long, a usual interval of scrapes.
_WINDOW_SECONDS = 15.0
_BLOCKED_SECONDS = 1.0
_LOG_SECONDS = 1.0

# As supervisors know it: the process ended by itself because it could not serve any more.
_EXIT_CODE = 70


_armed = threading.Event()


def arm_watchdog() -> None:
    """From now on a blocked loop is logged, and ends the process. Before, agents are imported, for minutes maybe."""
    _armed.set()


def _exit() -> None:
    os._exit(_EXIT_CODE)  # The loop's thread hangs, so nothing can be closed.


@asynccontextmanager
async def watched_event_loop(end_after_seconds: float, end: Callable[[], None] = _exit) -> AsyncIterator[None]:
    """Watches the loop of this thread while the block runs, from `arm_watchdog` on. A loop that is blocked for a
    second is logged with the stack that blocks it, and with the agent whose code that is, if it is one's. After
    `end_after_seconds` (0: never) the process ends, with exit code 70.
    """
    global _armed
    watch = _Watch(asyncio.get_running_loop(), end_after_seconds, end)
    _armed = threading.Event()
    beating = asyncio.create_task(watch.beat())
    thread = threading.Thread(target=watch.run, name="event loop watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        watch.stopped.set()
        beating.cancel()


class _Watch:
    """The loop beats four times a second; a thread of its own looks whether it does."""

    def __init__(self, loop: asyncio.AbstractEventLoop, end_after_seconds: float, end: Callable[[], None]) -> None:
        self.stopped = threading.Event()
        self._loop_thread = threading.get_ident()
        self._loop = loop
        self._end_after_seconds = end_after_seconds
        self._end = end
        self._beat_at = time.monotonic()
        self._delays: deque[tuple[float, float]] = deque()

    async def beat(self) -> None:
        """Notes the time, and how late it is, for as long as it is not cancelled."""
        while True:
            await asyncio.sleep(_BEAT_SECONDS)
            now = time.monotonic()
            delay = max(0.0, now - self._beat_at - _BEAT_SECONDS)
            self._beat_at = now
            self._delays.append((now, delay))
            while self._delays[0][0] < now - _WINDOW_SECONDS:
                self._delays.popleft()
            LOOP_LAG.set(max(one for _, one in self._delays))

    def run(self) -> None:
        """Logs each block when it is noticed and when it has ended, and ends the process after the longest that is
        permitted.
        """
        block: _Block | None = None
        while not self.stopped.wait(_BEAT_SECONDS):
            beat_at = self._beat_at
            blocked = time.monotonic() - beat_at
            if not _armed.is_set():
                continue
            if block is not None and beat_at != block.began_at:
                _log_end(block, beat_at - block.began_at)
                block = None
            if block is None and blocked > _BLOCKED_SECONDS + _BEAT_SECONDS:
                block = self._find_block(beat_at)
                _write(log.error, "the event loop is blocked", block, blocked)
            if self._end_after_seconds and blocked > self._end_after_seconds:
                block = self._find_block(beat_at)
                _write(log.critical, "the event loop was blocked for too long; the process ends", block, blocked)
                self._end()
                return

    def _find_block(self, began_at: float) -> "_Block":
        """Returns what the loop's thread does now, without any values."""
        agent = find_agent(asyncio.current_task(self._loop))
        frame = sys._current_frames().get(self._loop_thread)
        frames = traceback.extract_stack(frame) if frame is not None else []
        if not frames:
            return _Block(began_at, agent, "", "")
        lines = [f"{one.filename}:{one.lineno} {one.name}" for one in frames[-12:]]
        place = (agent and find_place(frames)) or f"{frames[-1].filename}:{frames[-1].lineno}"
        return _Block(began_at, agent, place, "\n".join(lines))


@dataclass(frozen=True)
class _Block:
    """What blocks the loop, since when (monotonic seconds), and in which agent's code, if it is an agent's."""

    began_at: float
    agent: str
    place: str
    stack: str


def _log_end(block: _Block, seconds: float) -> None:
    if not block.agent:
        _write(log.warning, "the event loop is free again", block, seconds)
        return
    advice = "use a plain def, or asyncio.to_thread"
    text = f"{block.agent} blocked the event loop for {seconds:.1f} s at {block.place}; {advice}"
    _write(log.warning, text, block, seconds)


def _write(write: Callable[..., object], event: str, block: _Block, seconds: float) -> None:
    """Writes a line from a thread of its own: the loop's thread may hang in a write to the log, and hold its lock."""
    fields: dict[str, object] = {"seconds": round(seconds, 1), "at": block.place}
    if block.agent:
        fields["agent"] = block.agent
    if write is not log.warning:
        fields["stack"] = block.stack
    writing = threading.Thread(target=write, args=(event,), kwargs=fields, daemon=True)
    writing.start()
    writing.join(_LOG_SECONDS)
