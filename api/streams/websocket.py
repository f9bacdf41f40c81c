"""Pattern 6 over a WebSocket: `WS /stream/ws`.

The first message starts a stream (the body of `POST /stream`, optionally with `idempotencyKey`) or resumes one
(`{"streamId": "str_…", "after": 12}`, with the id of any run). The server answers `{"streamId", "location"}` and then
sends the same lines as the other transports, a problem nested under `error`. `{"cancel": true}` cancels the run.

Close codes: 1000 after the end, 1012 when this process stops (reconnect and resume after the last index), 4000 + the
problem's HTTP status after an `error`, such as 4404 for a run that does not exist.
"""

import asyncio
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from pydantic import Field

from sevenfold.adapters.metrics.streams import BYTES
from sevenfold.api.dependencies import API_PREFIX, PrincipalDep
from sevenfold.api.http.idempotency import parse_idempotency_key
from sevenfold.api.http.problem_handlers import to_problem
from sevenfold.api.http.problems import ProblemError, ProblemType
from sevenfold.api.http.strict_json import InvalidJsonError, validate_body
from sevenfold.api.streams.lines import StreamLine, StreamSubscription, problem_line
from sevenfold.api.streams.options import MAX_INDEX, OnDisconnect
from sevenfold.api.streams.permissions import check_cancel, check_resume, check_start
from sevenfold.api.streams.resume import StreamOpener, StreamOpenerDep
from sevenfold.contracts.access.principals import Principal
from sevenfold.contracts.json.strict import parse_json
from sevenfold.contracts.payload import RequestBody
from sevenfold.contracts.runs.requests import StreamRequest

router = APIRouter(prefix=API_PREFIX)

_FIRST_MESSAGE_SECONDS = 10.0

ENDED, RESTART, PROBLEM = 1000, 1012, 4000


class _Resume(RequestBody):
    stream_id: str
    after: Annotated[int, Field(ge=0, le=MAX_INDEX)] = 0


class _Start(StreamRequest):
    idempotency_key: str | None = None


class _Cancel(RequestBody):
    cancel: bool


@router.websocket("/stream/ws")
async def stream_over_websocket(
    socket: WebSocket, opener: StreamOpenerDep, principal: PrincipalDep, on_disconnect: OnDisconnect = "continue"
) -> None:
    """Serves one stream over one connection; the module's docstring describes the protocol."""
    await socket.accept()
    with suppress(WebSocketDisconnect):
        try:
            if on_disconnect == "cancel":
                check_cancel(principal)
            subscription = await _open_stream(socket, opener, principal)
            await socket.send_text(f'{{"streamId":"{subscription.run_id}","location":"{subscription.path}"}}')
        except WebSocketDisconnect:
            raise
        except Exception as error:
            problem = to_problem(error)
            await socket.send_text(problem_line(problem).as_object.decode())
            await socket.close(PROBLEM + problem.problem_type.status)
            return
        await _run_session(socket, subscription, principal, cancels_run=on_disconnect == "cancel")


async def _open_stream(socket: WebSocket, opener: StreamOpener, principal: Principal) -> StreamSubscription:
    """Reads the first message and opens the stream that it starts or resumes."""
    try:
        async with asyncio.timeout(_FIRST_MESSAGE_SECONDS):
            message = await _receive_message(socket)
    except TimeoutError:
        raise ProblemError(
            ProblemType.BAD_REQUEST,
            f"No message came within {_FIRST_MESSAGE_SECONDS:g} s. Send the body of POST /stream to start a stream, "
            "or `streamId` and `after` to resume one.",
        ) from None
    if "streamId" in message:
        resume = validate_body(_Resume, message)
        check_resume(principal, resume.stream_id)
        return await opener.subscribe(principal.tenant, resume.stream_id, resume.after, "/after")
    start = validate_body(_Start, message)
    check_start(principal)
    body = StreamRequest.model_construct(
        start.model_fields_set - {"idempotency_key"},
        **{name: getattr(start, name) for name in StreamRequest.model_fields},
    )
    return await opener.start(principal, body, parse_idempotency_key(start.idempotency_key, "/idempotencyKey"))


async def _run_session(
    socket: WebSocket, subscription: StreamSubscription, principal: Principal, *, cancels_run: bool
) -> None:
    """Sends lines and receives messages until the stream ends or the client disconnects."""
    receiving = asyncio.create_task(_receive(socket, subscription, principal))
    sending = asyncio.create_task(_send(socket, subscription))
    try:
        await asyncio.wait({receiving, sending}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and not sending.cancelled() and sending.exception() is None:
            await socket.close(sending.result())
        elif cancels_run:
            subscription.cancel_in_background()
    finally:
        for task in (receiving, sending):
            task.cancel()
        await asyncio.gather(receiving, sending, return_exceptions=True)


async def _send(socket: WebSocket, subscription: StreamSubscription) -> int:
    """Sends all lines to the end; returns the close code."""
    last: StreamLine | None = None
    async for lines in subscription.lines():
        for last in lines:
            BYTES.inc(len(last.as_object))
            await socket.send_text(last.as_object.decode())
    if last is None or last.event == "done":
        return ENDED
    return RESTART if last.event == "reconnect" else PROBLEM + (last.status or 500)


async def _receive(socket: WebSocket, subscription: StreamSubscription, principal: Principal) -> None:
    """Cancels the run when the client requests it. Answers an invalid message with a problem and continues."""
    while True:
        try:
            if validate_body(_Cancel, await _receive_message(socket)).cancel:
                check_cancel(principal)
                subscription.cancel_in_background()
        except (RequestValidationError, InvalidJsonError, ProblemError) as error:
            await socket.send_text(problem_line(to_problem(error)).as_object.decode())


async def _receive_message(socket: WebSocket) -> dict[str, Any]:
    received = await socket.receive()
    if received["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(received.get("code", 1000))
    try:
        message = parse_json(received.get("text") or received.get("bytes") or b"")
    except ValueError as error:
        raise InvalidJsonError(error) from None
    if not isinstance(message, dict):
        raise RequestValidationError([{"loc": ("body",), "msg": "must be an object", "type": "dict_type"}])
    return message
