"""`POST /v1/chat/completions`."""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from sevenfold.api.dependencies import PrincipalDep
from sevenfold.api.http.authorization import OPENAI_PREFIX
from sevenfold.api.http.problems import ProblemError, ProblemType, invalid_field
from sevenfold.api.http.sse import STREAM_HEADERS
from sevenfold.api.openai.answers import chat_usage, describe_run, text_of, text_of_requests
from sevenfold.api.openai.conversations import from_chat
from sevenfold.api.openai.disconnects import GRACE_SECONDS, OnDisconnect, cancel_on_disconnect
from sevenfold.api.openai.errors import describe_error
from sevenfold.api.openai.questions import find_open_requests
from sevenfold.api.openai.requests import ChatRequest, OpenAIRoute
from sevenfold.api.openai.starts import Conversation, OpenAIStartsDep, RepeatDep
from sevenfold.api.runs.await_result import await_run
from sevenfold.api.runs.dependencies import RunReaderDep
from sevenfold.api.runs.reader import RunReader
from sevenfold.api.streams.lines import StreamLine, StreamSubscription
from sevenfold.api.streams.permissions import check_cancel
from sevenfold.contracts.access.principals import Principal
from sevenfold.contracts.agents.interface import Usage
from sevenfold.contracts.runs.outcomes import RunAnswer

router = APIRouter(prefix=OPENAI_PREFIX, include_in_schema=False, route_class=OpenAIRoute)


@router.post("/chat/completions")
async def complete(
    body: ChatRequest,
    starts: OpenAIStartsDep,
    reader: RunReaderDep,
    principal: PrincipalDep,
    repeat: RepeatDep,
    on_disconnect: OnDisconnect = None,
) -> Response:
    """Answers when the run has ended, or streams its text. The run continues if the client disconnects."""
    if body.n not in (None, 1):
        raise invalid_field("/n", "must be 1: an agent gives one answer")
    conversation = Conversation(from_chat(body.messages))
    if body.stream:
        if on_disconnect == "cancel":
            check_cancel(principal)
        subscription = await starts.start_stream(principal, body, conversation, repeat)
        subscription = await starts.without_void_text(subscription)
        chunks = _Chunks(subscription.run_id, body, reader, principal, cancels=on_disconnect == "cancel")
        pieces = cancel_on_disconnect(subscription, chunks.of(subscription), cancels=on_disconnect == "cancel")
        headers = {**STREAM_HEADERS, "X-Stream-Id": subscription.run_id}
        return StreamingResponse(pieces, media_type="text/event-stream", headers=headers)
    started = await starts.start(principal, body, conversation, repeat)
    result = await await_run(started, body.start_options().timeout + GRACE_SECONDS, {})
    if result is not None:
        answer = RunAnswer.from_result(result)
        text, described, usage = text_of(answer), describe_run(started.run_id, answer), answer.usage
    else:
        _, requests = await reader.read_requests(principal.tenant, started.run_id)
        if requests is None:
            raise ProblemError(ProblemType.DEADLINE_EXCEEDED, "The run has no answer yet.", run_id=started.run_id)
        text, described, usage = text_of_requests(requests), describe_run(started.run_id, None, requests), None
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    completion = {
        **_head(started.run_id, body, "chat.completion"),
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": chat_usage(usage),
        "sevenfold": described,
    }
    return Response(json.dumps(completion), media_type="application/json")


@dataclass
class _Chunks:
    """The chunks of one streamed completion. `cancels`: a client that does not get the end cancels the run.
    `has_sent`: the client has text; `has_text`: it will have, with what is about to be sent.
    """

    run_id: str
    body: ChatRequest
    reader: RunReader
    principal: Principal
    cancels: bool = False
    has_sent: bool = False
    has_text: bool = False

    async def of(self, subscription: StreamSubscription) -> AsyncIterator[bytes]:
        """Yields server-sent events. What was sent cannot be taken back here: a reset after text ends the stream with
        an error, and a repetition of the request finds the same run.
        """
        yield self._chunk({"role": "assistant", "content": ""})
        async for lines in subscription.lines():
            pieces: list[bytes] = []
            for line in lines:
                event = json.loads(line.data)
                if line.event is None and event.get("reset"):
                    if self.has_sent:
                        if self.cancels:
                            subscription.cancel_in_background()
                        yield _error(_RESET)
                        return
                    pieces, self.has_text = [], False
                    continue
                if line.event == "input_required":
                    piece, is_last = await self._ask(is_latest=line is lines[-1])
                else:
                    piece, is_last = await self._translate(line, event)
                pieces.append(piece)
                if is_last:
                    yield b"".join(pieces)
                    return
            self.has_sent = self.has_text
            yield b"".join(pieces) or b": heartbeat\n\n"

    async def _translate(self, line: StreamLine, event: dict[str, Any]) -> tuple[bytes, bool]:
        match line.event:
            case None if "chunk" in event:
                self.has_text = True
                return self._chunk({"content": event["chunk"]}), False
            case "done" if event["status"] == "completed":
                return await self._end(event), True
            case "done":
                return _error(_CANCELLED), True
            case "error":
                described = {**describe_run(self.run_id), "error": event}
                return _data({"error": describe_error(event), "sevenfold": described}), True
            case "reconnect":
                return _error(_RECONNECT), True
        return b"", False

    async def _ask(self, *, is_latest: bool) -> tuple[bytes, bool]:
        """The API has no status for it: the question is text, and the completion ends. A repetition of the request
        finds the same run, and continues when it was answered.
        """
        requests = await find_open_requests(self.reader, self.principal, self.run_id, is_latest=is_latest)
        if not requests:
            return b"", False
        text = self._chunk({"content": "\n\n" * self.has_text + text_of_requests(requests)})
        described = describe_run(self.run_id, None, requests)
        return b"".join([text, self._chunk({}, finish="stop", sevenfold=described), b"data: [DONE]\n\n"]), True

    async def _end(self, event: dict[str, Any]) -> bytes:
        usage = Usage.model_validate(event["usage"]) if event.get("usage") else None
        text = "" if self.has_text else await self._load_text()
        pieces = [self._chunk({"content": text})] if text else []
        pieces += [self._chunk({}, finish="stop", sevenfold=describe_run(self.run_id))]
        if self.body.stream_options is not None and self.body.stream_options.include_usage:
            counted = {**_head(self.run_id, self.body, "chat.completion.chunk"), "choices": []}
            pieces.append(_data({**counted, "usage": chat_usage(usage)}))
        return b"".join([*pieces, b"data: [DONE]\n\n"])

    async def _load_text(self) -> str:
        """An answer of data alone streams nothing."""
        run = await self.reader.load(await self.reader.find(self.principal.tenant, self.run_id))
        return text_of(run.result) if run.result is not None else ""

    def _chunk(self, delta: dict[str, Any], *, finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return _data({**_head(self.run_id, self.body, "chat.completion.chunk"), "choices": [choice], **more})


_RESET = {
    "message": "The agent starts its answer anew, and what was sent is void. Send the request again with its "
    "Idempotency-Key: it finds the same run.",
    "type": "server_error",
    "param": None,
    "code": "stream-reset",
}
_CANCELLED = {"message": "The run was cancelled.", "type": "server_error", "param": None, "code": "run-cancelled"}
_RECONNECT = {
    "message": "This process stops. Send the request again with its Idempotency-Key: it finds the same run.",
    "type": "server_error",
    "param": None,
    "code": "reconnect",
}


def _head(run_id: str, body: ChatRequest, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{run_id}", "object": kind, "created": int(time.time()), "model": body.model}


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def _error(error: dict[str, Any]) -> bytes:
    return _data({"error": error})
