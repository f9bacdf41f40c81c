"""Ends streams and WebSockets whose credential is revoked or expires while they are open."""

import asyncio
from contextvars import ContextVar

from starlette.types import Message, Scope, Send

from sevenfold.adapters.access.authenticator import Authenticator
from sevenfold.api.http.problems import ProblemError, ProblemType
from sevenfold.api.http.request_id import request_id
from sevenfold.contracts.access.principals import Principal

_CHECK_SECONDS = 1.0

# Other requests are served after this many checks.
_CHECKED_AT_ONCE = 100

# 4000 + the HTTP status, as the other problems of a WebSocket.
_CLOSE_CODE = 4401

_PROBLEM = ProblemError(
    ProblemType.UNAUTHORIZED,
    "The credential was revoked or has expired. The run continues; read it with another one.",
)


class OpenResponse:
    """A stream or WebSocket. `limit` is the time-out that can end it; `has_ended`: its credential ended it, not the
    client.
    """

    def __init__(self, limit: asyncio.Timeout) -> None:
        self.limit = limit
        self.has_ended = False


# That of the current request, for handlers that act on a disconnect; None without a credential.
current_response: ContextVar[OpenResponse | None] = ContextVar("response", default=None)


def is_ended_by_credential() -> bool:
    """Whether the current response was ended because its credential is not valid any more."""
    response = current_response.get()
    return response is not None and response.has_ended


class OpenResponses:
    """The open streams and WebSockets of this process, by who reads them. A task checks their credentials once a
    second while there are any.
    """

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._open: dict[Principal, set[OpenResponse]] = {}
        self._watch: asyncio.Task[None] | None = None

    def add(self, response: OpenResponse, principal: Principal) -> None:
        """Watches a response, which ends when its credential is not valid any more."""
        self._open.setdefault(principal, set()).add(response)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._check_periodically())

    def discard(self, response: OpenResponse, principal: Principal) -> None:
        """The response has ended."""
        responses = self._open.get(principal)
        if responses is not None:
            responses.discard(response)
            if not responses:
                del self._open[principal]

    async def _check_periodically(self) -> None:
        while self._open:
            await asyncio.sleep(_CHECK_SECONDS)
            for number, principal in enumerate(list(self._open)):
                if number % _CHECKED_AT_ONCE == 0:
                    await asyncio.sleep(0)
                if not await self._authenticator.is_valid(principal):
                    self._end(principal)

    def _end(self, principal: Principal) -> None:
        now = asyncio.get_running_loop().time()
        for response in self._open.pop(principal, set()):
            response.has_ended = True
            response.limit.reschedule(now)


def is_open_ended(message: Message) -> bool:
    """Whether a message begins a stream or a WebSocket: a response without a length."""
    if message["type"] == "websocket.accept":
        return True
    return message["type"] == "http.response.start" and not any(
        name.lower() == b"content-length" for name, _ in message.get("headers", ())
    )


async def end_response(scope: Scope, send: Send, media_type: str) -> None:
    """Ends a response whose headers were sent. The last line of a stream is a problem."""
    if scope["type"] == "websocket":
        await send(
            {"type": "websocket.close", "code": _CLOSE_CODE, "reason": "The credential is not valid any more."}
        )
        return
    problem = _PROBLEM.body(request_id()).model_dump_json(by_alias=True, exclude_none=True)
    last = ""
    if media_type.startswith("text/event-stream"):
        last = f"event: error\ndata: {problem}\n\n"
    elif media_type.startswith("application/x-ndjson"):
        last = f'{{"error":{problem}}}\n'
    await send({"type": "http.response.body", "body": last.encode(), "more_body": False})
