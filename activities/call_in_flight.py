"""One call to an agent that runs in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Protocol

import structlog

from activities.spoken_text import SpokenText
from adapters.agents.error_boundary import as_agent_error, enter_agent_code
from adapters.agents.replies import as_event
from contracts.agent import Agent, AgentContext, AgentEvent, AgentRequest, Delta, Progress, Reply
from contracts.streams import StreamClosedError, StreamLogError
from contracts.strict_json import JsonLimitError, check_answer
from contracts.verdicts import AgentRejected, AgentUnavailable, DeadlineExceeded

log = structlog.get_logger(__name__)

# What a cancelled agent may take for its own cleanup before we stop waiting for it.
CLEANUP_SECONDS = 10.0


class Publisher(Protocol):
    """Where a call tells what its agent says; see `adapters.streams.publisher`."""

    async def chunk(self, text: str) -> None: ...

    async def progress(self, percent: float, note: str) -> None: ...

    async def whole(self, text: str) -> None: ...

    def release(self) -> None: ...

    async def until_released(self) -> None: ...

    async def close(self, *, answered: bool = False) -> int: ...

    def want(self) -> None: ...

    @property
    def is_kept(self) -> bool: ...


class _Unheard:
    """For calls that nobody can follow: those for a job's single items."""

    async def chunk(self, text: str) -> None:
        pass

    async def progress(self, percent: float, note: str) -> None:
        pass

    async def whole(self, text: str) -> None:
        pass

    def release(self) -> None:
        pass

    async def until_released(self) -> None:
        pass

    async def close(self, *, answered: bool = False) -> int:
        return 0

    def want(self) -> None:
        pass

    @property
    def is_kept(self) -> bool:
        return False


class CallInFlight:
    """One running call. `done` resolves to the agent's reply or raises its error.

    What the agent says meanwhile goes to `publisher`, if anybody may follow it; `last_index` is the last of it that
    is kept. It is cancelled by `cancel` alone: a cancellation that comes from anywhere else is the agent's own, and
    so a failed attempt.
    """

    def __init__(
        self, agent: Agent, request: AgentRequest, context: AgentContext, publisher: Publisher | None = None
    ) -> None:
        self.attempt = request.attempt
        self.progress: Progress | None = None
        self.last_index = 0
        self.publisher: Publisher = publisher or _Unheard()
        self._context = context
        self._cancel_requested = False
        self._time_left: asyncio.Timeout | None = None
        self.done = asyncio.create_task(self._drain(agent, request), name=f"agent call {request.run_id}")
        # Whoever awaits `done` gets its error; this only keeps asyncio from calling an abandoned one forgotten.
        self.done.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _drain(self, agent: Agent, request: AgentRequest) -> Reply:
        enter_agent_code()
        try:
            reply = await self._heard_out(agent, request)
        except BaseException:
            with suppress(StreamLogError, StreamClosedError):  # what went wrong before tells more
                await self.publisher.close()
            raise
        self.last_index = await self._closed()
        return reply

    async def _heard_out(self, agent: Agent, request: AgentRequest) -> Reply:
        """Also of an agent that fails at once readers shall have everywhere, and later too, what it said."""
        try:
            reply = await self._in_time(agent, request)
        except Exception:
            await self.publisher.until_released()
            raise
        await self.publisher.until_released()
        return reply

    async def _in_time(self, agent: Agent, request: AgentRequest) -> Reply:
        self._time_left = asyncio.timeout(self._context.remaining_seconds())
        try:
            async with self._time_left:
                return await self._listen(agent, request)
        except TimeoutError:
            self._context.cancelled.set()
            raise DeadlineExceeded("The agent had not answered when the run's time was over.") from None

    async def _listen(self, agent: Agent, request: AgentRequest) -> Reply:
        spoken = SpokenText()
        events = self._run(agent, request)
        try:
            while (event := await self._next(events)) is not None:
                match event:
                    case Delta(text=text):
                        if piece := spoken.hear(text):
                            await self.publisher.chunk(piece)
                    case Progress():
                        self.progress = event
                        await self.publisher.progress(event.percent, event.note)
                    case Reply():
                        whole = _whole(event, spoken.end())
                        if whole.response and not spoken.anything:
                            await self.publisher.whole(whole.response)
                        return whole
        finally:
            await self._end(events)
        raise AgentUnavailable("The agent broke off before its reply.")

    def _run(self, agent: Agent, request: AgentRequest) -> AsyncIterator[AgentEvent]:
        try:
            return aiter(agent.run(request, self._context))
        except BaseException as error:
            raise (failed := as_agent_error(error)) from failed.__cause__

    async def _next(self, events: AsyncIterator[AgentEvent]) -> AgentEvent | None:
        """The agent's next event, None after the last. Raises AgentErrors, and CancelledError if we asked for it."""
        try:
            return as_event(await anext(events))
        except StopAsyncIteration:
            return None
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and self._is_ending:
                raise
            self._withdraw_cancellations()
            raise (failed := as_agent_error(error)) from failed.__cause__

    async def _end(self, events: AsyncIterator[AgentEvent]) -> None:
        """Has the agent clean up. An agent that fails at that has answered all the same, or failed before."""
        aclose = getattr(events, "aclose", None)
        if aclose is None:
            return
        try:
            async with asyncio.timeout(CLEANUP_SECONDS):
                await aclose()
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and self._is_ending:
                raise
            self._withdraw_cancellations()
            log.warning("an agent failed at its cleanup", error=str(as_agent_error(error)))

    @property
    def _is_ending(self) -> bool:
        """Whether a cancellation of this task is ours: requested, or by the run's deadline."""
        return self._cancel_requested or (self._time_left is not None and self._time_left.expired())

    def _withdraw_cancellations(self) -> None:
        """Undoes what an agent requested by cancelling the task that it runs in."""
        task = asyncio.current_task()
        while task is not None and not self._is_ending and task.cancelling():
            task.uncancel()

    async def _closed(self) -> int:
        try:
            return await self.publisher.close(answered=True)
        except (StreamLogError, StreamClosedError) as error:
            raise AgentUnavailable(str(error)) from error

    async def cancel(self) -> None:
        """Ends the call and waits for the agent's own cleanup, within bounds."""
        self._cancel_requested = True
        self._context.cancelled.set()
        self.done.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait({self.done}, timeout=CLEANUP_SECONDS)


def _whole(reply: Reply, spoken: str) -> Reply:
    """The reply, with what was streamed as its response unless it has one. Raises AgentRejected for a reply that
    cannot be written down: every attempt would fail on it, later and less clearly.
    """
    whole: Reply = reply if reply.response else reply.model_copy(update={"response": spoken})
    try:
        whole.response.encode()
        if whole.data is not None:
            check_answer(whole.data)
        whole.model_dump_json()
    except JsonLimitError as error:
        raise AgentRejected(f"The agent's reply is not taken: {error}.") from error
    except Exception as error:
        reason = "holds text that is not valid Unicode" if "surrogates" in str(error) else "cannot be written as JSON"
        raise AgentRejected(f"The agent's reply {reason}.") from as_agent_error(error).__cause__
    return whole
