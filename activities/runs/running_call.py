"""One agent call in this process."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace

import structlog
from pydantic import ValidationError
from pydantic_core import to_json

from sevenfold.activities.runs.call_publisher import CallPublisher, NullPublisher
from sevenfold.activities.runs.call_span import CallSpan
from sevenfold.activities.runs.durable_call import RunDurableCall
from sevenfold.activities.runs.spending import Spending
from sevenfold.activities.runs.text_accumulator import TextAccumulator
from sevenfold.adapters.agents.error_boundary import as_agent_error, enter_agent_code
from sevenfold.adapters.agents.replies import as_event
from sevenfold.adapters.tracing import tracer
from sevenfold.contracts.agents.errors import (
    DEADLINE_PASSED,
    AgentFailed,
    AgentRejected,
    AgentUnavailable,
    DeadlineExceeded,
)
from sevenfold.contracts.agents.interface import (
    Agent,
    AgentContext,
    AgentEvent,
    AgentRequest,
    Delta,
    Progress,
    Reply,
    Usage,
)
from sevenfold.contracts.agents.questions import InputRequired
from sevenfold.contracts.agents.steps import StreamMark
from sevenfold.contracts.json.strict import JsonLimitError, check_answer
from sevenfold.contracts.runs.streams import StreamClosedError, StreamLogError

log = structlog.get_logger(__name__)

# Time for a cancelled agent's cleanup.
CLEANUP_SECONDS = 10.0


class CallInFlight:
    """One running call. `done` resolves to the agent's reply, or raises its AgentError, or InputRequired if people
    have to answer first. `durable` keeps its steps and questions.

    Text and progress go to `publisher`, progress to `report_progress` too; `last_index` is the last index that the
    stream keeps, and `first_text_seconds` how long its first text took. `usage` is what the agent has reported; when
    `spending` has nothing left, the call is stopped. Only `cancel` cancels the call: a CancelledError from anywhere
    else is raised by the agent and counts as a failed attempt. `name` is the agent's.

    Life cycle: running from the constructor on; then `done` has a reply, an error or a cancellation. A call that
    awaits adoption finishes only after `publisher.confirm_adoption`, so that its stream is complete everywhere.
    """

    def __init__(
        self,
        agent: Agent,
        request: AgentRequest,
        context: AgentContext,
        publisher: CallPublisher | None = None,
        report_progress: Callable[[Progress], None] | None = None,
        spending: Spending | None = None,
        span: CallSpan | None = None,
        *,
        name: str = "agent",
        durable: Callable[[Callable[[], StreamMark | None]], RunDurableCall] | None = None,
    ) -> None:
        self._name = name
        self._text = TextAccumulator()
        self.durable = durable(self._build_mark) if durable is not None else None
        self.attempt = request.attempt
        self.usage: Usage | None = None
        self.spending = spending or Spending()
        self.progress: Progress | None = None
        self.last_index = 0
        self.first_text_seconds: float | None = None
        self._started_at = time.monotonic()
        self.publisher: CallPublisher = publisher or NullPublisher()
        self._report_progress = report_progress
        self._span = span
        self._context = replace(context, durable=self.durable, loop=asyncio.get_running_loop())
        self._cancel_requested = False
        self._deadline_timeout: asyncio.Timeout | None = None
        self.done = asyncio.create_task(self._run_agent(agent, request), name=f"agent call {request.run_id}")
        # It also retrieves the exception, which asyncio would log for an abandoned call.
        self.done.add_done_callback(self._finish)

    def _use(self, usage: Usage | None) -> Usage:
        """Adds a report to what the call has used, and returns that."""
        self.usage = (self.usage or Usage()).at_least(usage or Usage())
        return self.usage

    def _finish(self, done: "asyncio.Task[Reply]") -> None:
        if self.durable is not None:
            self.durable.close()
        error = None if done.cancelled() else done.exception()
        has_failed = done.cancelled() or (error is not None and not isinstance(error, InputRequired))
        self.spending.finish(self.usage, failed=has_failed)
        if self._span is not None:
            self._span.finish(done, self.usage)

    async def _run_agent(self, agent: Agent, request: AgentRequest) -> Reply:
        enter_agent_code(self._name)
        if self.durable is not None and (task := asyncio.current_task()) is not None:
            self.durable.start(task)
        if self._span is not None and (active := tracer()) is not None:
            active.enter(self._span.context)
        try:
            reply = await self._run_until_adopted(agent, request)
        except BaseException as error:
            with suppress(StreamLogError, StreamClosedError):  # The earlier error explains more.
                if isinstance(error, InputRequired):
                    await self.publisher.publish_questions(to_json(error.questions, by_alias=True).decode())
                await self.publisher.close()
            raise
        self.last_index = await self._close_publisher()
        return reply

    async def _run_until_adopted(self, agent: Agent, request: AgentRequest) -> Reply:
        """Runs the agent, then waits for the adoption. This applies to failures too: readers in every process must
        get the text that preceded the failure.
        """
        try:
            reply = await self._run_with_deadline(agent, request)
        except Exception as error:
            await self.publisher.wait_for_adoption()
            self._raise_if_input_required(error)
            raise
        await self.publisher.wait_for_adoption()
        self._raise_if_input_required(None)
        return reply

    def _raise_if_input_required(self, error: Exception | None) -> None:
        """An agent that was to end has asked, whatever it does then; unless it refuses, or its time is over."""
        is_over = isinstance(error, DeadlineExceeded | AgentRejected)
        if self.durable is not None and self.durable.questions and not is_over:
            raise InputRequired(self.durable.questions, self._build_mark())

    def _build_mark(self) -> StreamMark | None:
        if not self._text.size:
            return None
        return StreamMark(size=self._text.size, digest=self._text.digest(), index=self.publisher.last_index)

    def confirm_adoption(self) -> None:
        """An activity has adopted the call: its stream goes to the log, and its steps may begin."""
        self.publisher.confirm_adoption()
        if self.durable is not None:
            self.durable.confirm_adoption()

    async def _run_with_deadline(self, agent: Agent, request: AgentRequest) -> Reply:
        self._deadline_timeout = asyncio.timeout(self._context.remaining_seconds())
        try:
            async with self._deadline_timeout:
                return await self._consume_events(agent, request)
        except TimeoutError:
            self._context.cancelled.set()
            raise DeadlineExceeded(DEADLINE_PASSED) from None

    async def _consume_events(self, agent: Agent, request: AgentRequest) -> Reply:
        accumulator = self._text
        events = self._start_agent(agent, request)
        try:
            while (event := await self._next_event(events)) is not None:
                match event:
                    case Delta(text=text):
                        if self.first_text_seconds is None:
                            self.first_text_seconds = time.monotonic() - self._started_at
                        if piece := accumulator.append(text):
                            await self.publisher.publish_chunk(piece)
                    case Progress():
                        self.progress = event
                        if self._report_progress is not None:
                            self._report_progress(event)
                        await self.publisher.publish_progress(event.percent, event.note)
                    case Usage():
                        self.spending.report(self._use(event))
                    case Reply():
                        complete = _complete_reply(event, accumulator.finish(), self.usage)
                        self._use(complete.usage)
                        if complete.response and not accumulator.has_text:
                            await self.publisher.publish_response(complete.response)
                        return complete
        finally:
            await self._close_events(events)
        raise AgentFailed("The agent ended without a reply. Yield or return one last.", is_outage=False)

    def _start_agent(self, agent: Agent, request: AgentRequest) -> AsyncIterator[AgentEvent]:
        try:
            return aiter(agent.run(request, self._context))
        except BaseException as error:
            raise (failed := as_agent_error(error)) from failed.__cause__

    async def _next_event(self, events: AsyncIterator[AgentEvent]) -> AgentEvent | None:
        """Returns the agent's next event, None after the last. Raises AgentError, and CancelledError if the call is
        cancelled.
        """
        try:
            return as_event(await anext(events))
        except StopAsyncIteration:
            return None
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and self._is_ending:
                raise
            self._withdraw_cancellations()
            failed = as_agent_error(error)
            self._use(failed.usage)
            raise failed from failed.__cause__

    async def _close_events(self, events: AsyncIterator[AgentEvent]) -> None:
        """Closes the agent's generator. A failing cleanup does not change the call's outcome."""
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
            log.warning("an agent's cleanup failed", error=type(as_agent_error(error)).__name__)

    @property
    def _is_ending(self) -> bool:
        """Whether a cancellation of this task is ours: requested, or by the run's deadline."""
        return self._cancel_requested or (self._deadline_timeout is not None and self._deadline_timeout.expired())

    def _withdraw_cancellations(self) -> None:
        """Reverts cancellations of the current task that the agent requested."""
        task = asyncio.current_task()
        while task is not None and not self._is_ending and task.cancelling():
            task.uncancel()

    async def _close_publisher(self) -> int:
        try:
            return await self.publisher.close(is_final=True)
        except (StreamLogError, StreamClosedError) as error:
            raise AgentUnavailable(str(error)) from error

    async def cancel(self) -> None:
        """Cancels the call and waits up to 10 s for the agent's cleanup."""
        self._cancel_requested = True
        self._context.cancelled.set()
        if self.durable is not None:
            self.durable.close()
        self.done.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait({self.done}, timeout=CLEANUP_SECONDS)


def _complete_reply(reply: Reply, streamed_text: str, usage: Usage | None) -> Reply:
    """Returns the reply, with the streamed text as its response if it has none, and the usage reported before it if
    it has none.

    Raises AgentRejected for a reply that cannot be encoded: every attempt would fail on it, later and less clearly.
    """
    missing = {} if reply.response else {"response": streamed_text}
    complete: Reply = reply.model_copy(update=missing | ({} if reply.usage else {"usage": usage}))
    try:
        complete.response.encode()
        if complete.data is not None:
            check_answer(complete.data)
        complete.model_dump_json()
        if complete.usage is not None:  # An agent may have built it without validation.
            Usage.model_validate(dict(complete.usage))
    except JsonLimitError as error:
        raise AgentRejected(f"The agent's reply is refused: {error}.") from error
    except Exception as error:
        reason = "has text that is not valid Unicode" if "surrogates" in str(error) else "cannot be encoded as JSON"
        if isinstance(error, ValidationError):
            reason = "has a usage that is not a number of tokens, 0 or more"
        raise AgentRejected(f"The agent's reply {reason}.") from as_agent_error(error).__cause__
    return complete
