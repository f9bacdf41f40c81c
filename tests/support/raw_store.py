"""What stands in Temporal, as bytes: histories and descriptions without the data converter, and files."""

import base64
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload, SearchAttributes, WorkflowExecution
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    GetWorkflowExecutionHistoryRequest,
)
from temporalio.client import Client

_ENCODINGS = (b"binary/encrypted", b"binary/null")
_REFERENCE = b"temporal.api.sdk.v1.ExternalStorageReference"

# What the SDK and the server write themselves.
_MESSAGES = ("", "Encoded failure", "UnhandledCommand")


async def raw_histories(client: Client, query: str = "") -> AsyncIterator[tuple[str, list[HistoryEvent], bytes]]:
    """Every execution's id, its events, and its description as bytes."""
    async for execution in client.list_workflows(query):
        reference = WorkflowExecution(workflow_id=execution.id, run_id=execution.run_id)
        events: list[HistoryEvent] = []
        request = GetWorkflowExecutionHistoryRequest(namespace=client.namespace, execution=reference)
        while True:
            answer = await client.workflow_service.get_workflow_execution_history(request)
            events += answer.history.events
            if not answer.next_page_token:
                break
            request.next_page_token = answer.next_page_token
        described = await client.workflow_service.describe_workflow_execution(
            DescribeWorkflowExecutionRequest(namespace=client.namespace, execution=reference)
        )
        yield execution.id, events, described.SerializeToString()


def clear_parts(message: Message, path: str = "") -> Iterator[str]:
    """Payloads that are not encrypted and messages of failures that are not encoded, without search attributes,
    references to stored payloads, what the SDK's core writes into markers, and the header with the trace's ids.
    """
    if isinstance(message, SearchAttributes) or path.endswith("[_tracer-data]"):
        return
    if isinstance(message, Payload):
        if message.metadata.get("encoding") not in _ENCODINGS and message.metadata.get("messageType") != _REFERENCE:
            yield f"{path}: {dict(message.metadata)} {message.data[:80]!r}"
        return
    if isinstance(message, Failure) and (message.message not in _MESSAGES or message.stack_trace):
        yield f"{path}: failure {message.message[:80]!r}"
    for name, inner in _messages_in(message):
        yield from clear_parts(inner, f"{path}.{name}")


def _messages_in(message: Message) -> Iterator[tuple[str, Message]]:
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        if field.message_type.GetOptions().map_entry:
            marker = "data" if field.name == "details" else None
            yield from (
                (f"{field.name}[{key}]", one)
                for key, one in value.items()
                if isinstance(one, Message) and key != marker
            )
        else:
            yield from ((field.name, one) for one in (value if field.is_repeated else [value]))


def spellings(text: str) -> list[bytes]:
    """The text as bytes, and as it looks within base64 at each of the three alignments."""
    raw = text.encode()
    shifted = [base64.b64encode(b"\0" * shift + raw)[4 if shift else 0 : -4] for shift in range(3)]
    return [raw, *shifted]


def files_with(directory: Path, text: str) -> list[str]:
    """The files below the directory that hold the text."""
    wanted = spellings(text)
    found = []
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            found += [str(path.relative_to(directory)) for one in wanted if one in content][:1]
    return found
