"""Finds the runs behind responses, and reads what was asked in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from temporalio.client import Client, WorkflowExecutionDescription

from sevenfold.adapters.temporal.run_deletion import delete_run
from sevenfold.adapters.temporal.run_restarts import load_input
from sevenfold.api.dependencies import component
from sevenfold.api.http.problems import ProblemError, ProblemType, invalid_field, not_found
from sevenfold.api.openai.answers import text_of
from sevenfold.api.openai.conversations import continue_conversation
from sevenfold.api.openai.requests import STORE
from sevenfold.api.openai.resets import find_resets
from sevenfold.api.openai.response_events import WHOLE_INDEX, ItemStart, ResponseEvents, to_index
from sevenfold.api.openai.response_objects import ResponseHead, to_run_id
from sevenfold.api.runs.poll_cache import PollCache
from sevenfold.api.runs.reader import RunReader
from sevenfold.api.runs.views import Run
from sevenfold.api.streams.lines import StreamSubscription
from sevenfold.api.streams.resume import StreamOpener
from sevenfold.contracts.access.principals import Principal
from sevenfold.contracts.agents.interface import Message
from sevenfold.contracts.identity import build_workflow_id
from sevenfold.contracts.runs.run import RunInput, RunStatus
from sevenfold.contracts.runs.streams import RESET_STEP, Index

# The events that end a stream follow its last delta with these many numbers, or a reset, if data alone follow that.
_END_EVENTS = 5

# Beyond all that lines.py makes of a run that streamed nothing.
_AFTER_EVERYTHING = RESET_STEP + 1


@dataclass(frozen=True)
class ResponseStore:
    """The responses of a tenant: its runs."""

    client: Client
    reader: RunReader
    opener: StreamOpener
    poll_cache: PollCache

    async def load(self, tenant: str, response_id: str, *, is_own: bool = False) -> tuple[Run, RunInput]:
        """Returns a response's run and what was asked in it. Raises 404, also for one that its client did not want to
        be stored, unless it `is_own` request that asks.
        """
        description = await self._find(tenant, response_id)
        return await self.reader.load(description), await self._load_input(description, is_own=is_own)

    async def load_messages(self, tenant: str, response_id: str) -> Sequence[Message]:
        """Returns the conversation that a response answers. Raises 404."""
        run_input = await self._load_input(await self._find(tenant, response_id))
        return _messages_of(run_input)

    async def continue_from(
        self, principal: Principal, previous: str | None, new: Sequence[Message]
    ) -> list[Message]:
        """Returns the whole conversation of a response that continues another. Raises 403 for a key that may not
        read runs, and 400 if the one before does not exist, has no answer yet, or is too long.
        """
        if previous is None:
            return list(new)
        if not principal.may_read_runs:
            raise ProblemError(ProblemType.FORBIDDEN, "Only a key with the scope runs:read may continue a response.")
        try:
            run, run_input = await self.load(principal.tenant, previous)
        except ProblemError as error:
            if error.problem_type is not ProblemType.NOT_FOUND:
                raise
            raise invalid_field("/previous_response_id", "there is no such response") from error
        if run.result is None:
            detail = f"the response is {run.status}: only one with an answer can be continued"
            raise invalid_field("/previous_response_id", detail)
        return continue_conversation(_messages_of(run_input), text_of(run.result), new)

    async def stream(
        self, principal: Principal, response_id: str, after: int | None
    ) -> tuple[ResponseEvents, StreamSubscription]:
        """Returns the events of a response after a sequence number. Raises as `StreamOpener` does."""
        tenant = principal.tenant
        run, run_input = await self.load(tenant, response_id)
        last = -1 if after is None else after
        index, has_whole = await self._locate(run, tenant, to_index(last))
        item = ItemStart() if has_whole else await self._find_item(tenant, run.id, index)
        text = None if has_whole or index > item.reset_index else ""
        # Who has the whole, gets the end alone.
        after_index = _AFTER_EVERYTHING if has_whole else index
        subscription = await self.opener.subscribe(tenant, run.id, after_index, "query:starting_after")
        head, asked = ResponseHead.of_run(run, run_input), run.shown_to(principal).requests or []
        return ResponseEvents(head, self.reader, principal, last, item, text, asked, has_whole), subscription

    async def delete(self, tenant: str, response_id: str) -> None:
        """Deletes the run of a response. Raises 404, and 409 if it has not ended."""
        description = await self._find(tenant, response_id)
        if description.close_time is None:
            detail = "The response is in progress. Cancel it first."
            raise ProblemError(ProblemType.RUN_OPEN, detail, run_id=to_run_id(response_id))
        await delete_run(self.client, description)
        self.poll_cache.drop(tenant, to_run_id(response_id))

    async def _find(self, tenant: str, response_id: str) -> WorkflowExecutionDescription:
        return await self.reader.find(tenant, to_run_id(response_id))

    async def _load_input(self, description: WorkflowExecutionDescription, *, is_own: bool = False) -> RunInput:
        run_input = await load_input(self.client, description)
        if not isinstance(run_input, RunInput):
            raise not_found("This response")
        if not is_own and run_input.request.context.get(STORE) is False:
            raise not_found("This response")
        return run_input

    async def _locate(self, run: Run, tenant: str, index: Index) -> tuple[Index, bool]:
        """Returns the index of the last chunk or reset that the reader has: who has an event of the end, has every
        chunk. The second is whether that is the whole of a run that streamed nothing.
        """
        if not index or run.status not in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED):
            return index, False
        last = await self.opener.hubs.log.last_index(build_workflow_id(tenant, run.id))
        if not last and run.result is not None and text_of(run.result):  # its end follows the whole
            return index, WHOLE_INDEX <= index <= WHOLE_INDEX + _END_EVENTS
        return (last if last < index <= last + _END_EVENTS else index), False

    async def _find_item(self, tenant: str, run_id: str, index: Index) -> ItemStart:
        """Returns the item that is open after an index."""
        if index < RESET_STEP:
            return ItemStart()
        found = await find_resets(self.opener.hubs.log, build_workflow_id(tenant, run_id))
        if found is None:  # lines.py: such a response follows one reset
            return ItemStart(RESET_STEP, 1)
        resets = [reset for reset in found if reset <= index]
        return ItemStart(resets[-1], len(resets)) if resets else ItemStart()


def _messages_of(run_input: RunInput) -> list[Message]:
    asked = run_input.request
    return asked.messages or [Message(role="user", content=asked.query or asked.task)]


ResponseStoreDep = Annotated[ResponseStore, Depends(component("response_store"))]
