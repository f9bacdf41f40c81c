"""The log of a stream in its own run: written by Temporal's Workflow Streams, read from the history.

Each item is a batch, a list of entries: as items of their own they made half of what an open stream weighs. The
stock client of `temporalio.contrib.workflow_streams` can follow such a run too. Our readers do not ask the workflow,
as that client does: they wait for the history's next event. That needs no worker, works the same after the run has
ended, adds nothing to the history, and is faster (docs/decisions.md, "Reading a stream").
"""

import base64
import json
from collections.abc import Sequence
from datetime import timedelta

from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import (
    GetWorkflowExecutionHistoryRequest,
    GetWorkflowExecutionHistoryReverseRequest,
)
from temporalio.client import Client
from temporalio.contrib.workflow_streams import PublishInput, WorkflowStreamClient
from temporalio.service import RPCError, RPCStatusCode

from contracts.streams import StreamClosedError, StreamEntry, StreamLogError, StreamPage

TOPIC = "stream"
_PUBLISH_SIGNAL = "__temporal_workflow_stream_publish"

_JSON = {"encoding": b"json/plain"}

_PAGE_EVENTS = 200

# Longer than the server lets a question for the next event wait.
_LONGEST_WAIT = timedelta(seconds=70)

# A write costs an event for the batch, three for the workflow task behind it, and some 10 ms of processor. Readers in
# the process itself have the tail. Readers elsewhere want every batch early, as long as the history can bear it.
_PAUSE_FOLLOWED_HERE = 1.0
_SHORTEST_PAUSE = 0.1
_PAUSE_PER_AGE = 1 / 200
_WRITES_A_SECOND = 25


class TemporalStreamLog:
    """The log that needs nothing installed."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def writer(self, workflow_id: str) -> "TemporalStreamWriter":
        """A writer for one attempt of the run."""
        return TemporalStreamWriter(self._client, workflow_id)

    def pause(self, *, followed_here: bool, age: float, writers: int) -> float:
        """Seconds between two writes; see `contracts.streams.StreamLog`."""
        wanted = _PAUSE_FOLLOWED_HERE if followed_here else age * _PAUSE_PER_AGE
        return max(_SHORTEST_PAUSE, min(wanted, _PAUSE_FOLLOWED_HERE), writers / _WRITES_A_SECOND)

    async def read(self, workflow_id: str, position: bytes | None, *, wait: bool) -> StreamPage:
        """The history's next events; `position` is the server's page token.

        A run that is open makes it wait, whatever `wait` says: its history has no end yet.
        """
        request = GetWorkflowExecutionHistoryRequest(
            namespace=self._client.namespace,
            execution=WorkflowExecution(workflow_id=workflow_id),
            maximum_page_size=_PAGE_EVENTS,
            next_page_token=position or b"",
            wait_new_event=True,
        )
        try:
            answer = await self._client.workflow_service.get_workflow_execution_history(
                request, retry=True, timeout=_LONGEST_WAIT
            )
        except RPCError as error:
            raise StreamLogError(error.message) from error
        entries = [entry for event in answer.history.events for entry in await self._entries(event)]
        token = answer.next_page_token
        return StreamPage(entries=entries, position=token or position, more=bool(token))

    async def last_index(self, workflow_id: str) -> int:
        """Looked for from the history's end backwards."""
        request = GetWorkflowExecutionHistoryReverseRequest(
            namespace=self._client.namespace,
            execution=WorkflowExecution(workflow_id=workflow_id),
            maximum_page_size=_PAGE_EVENTS,
        )
        service = self._client.workflow_service
        try:
            while True:
                answer = await service.get_workflow_execution_history_reverse(request, retry=True)
                entries = [entry for event in answer.history.events for entry in await self._entries(event)]
                if entries:  # a writer out of its time may have the last word, but not the highest number
                    return max(entry.index for entry in entries)
                if not answer.next_page_token:
                    return 0
                request.next_page_token = answer.next_page_token
        except RPCError as error:
            raise StreamLogError(error.message) from error

    async def _entries(self, event: HistoryEvent) -> list[StreamEntry]:
        signal = event.workflow_execution_signaled_event_attributes
        if signal.signal_name != _PUBLISH_SIGNAL:
            return []
        (batch,) = await self._client.data_converter.decode(signal.input.payloads, [PublishInput])
        return [entry for item in batch.items if item.topic == TOPIC for entry in _batch(item.data)]


def _batch(data: str) -> list[StreamEntry]:
    # as `PublishEntry` documents it: a serialized payload in base64
    payload = Payload.FromString(base64.b64decode(data))
    return [StreamEntry.of(body) for body in json.loads(payload.data)]


class TemporalStreamWriter:
    """Writes batches as signals; a batch that is sent again is recognized by its sequence number."""

    def __init__(self, client: Client, workflow_id: str) -> None:
        self._stream = WorkflowStreamClient.create(client, workflow_id)
        self._topic = self._stream.topic(TOPIC)
        self._sent: Sequence[StreamEntry] = ()

    async def append(self, entries: Sequence[StreamEntry]) -> None:
        """See `contracts.streams.StreamWriter`."""
        if entries is not self._sent:  # the stock client keeps what it could not send
            batch = f"[{','.join(entry.text for entry in entries)}]".encode()
            self._topic.publish(Payload(metadata=_JSON, data=batch))
            self._sent = entries
        try:
            await self._stream.flush()
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                raise StreamClosedError("The run has ended.") from error
            raise StreamLogError(error.message) from error
        except TimeoutError as error:
            raise StreamLogError(str(error)) from error
        self._sent = ()
