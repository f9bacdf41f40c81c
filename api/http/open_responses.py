"""Ends streams and WebSockets whose credential is revoked or expires while they are open."""

import asyncio

from starlette.types import Message, Scope, Send

from sevenfold.adapters.access.authenticator import Authenticator
from sevenfold.api.http.problems import ProblemError, ProblemType
from sevenfold.api.http.request_id import request_id
from sevenfold.contracts.access import Principal

_CHECK_SECONDS = 1.0

# 4000 + the HTTP status, as the other problems of a WebSocket.
_CLOSE_CODE = 4401

_PROBLEM = ProblemError(
    ProblemType.UNAUTHORIZED,
    "The credential was revoked or has expired. The run continues; read it with another one.",
)


class OpenResponses:
    """The open streams and WebSockets of this process, each as the time-out that can end it. A task checks their
    credentials once a second while there are any.
    """

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._open: dict[asyncio.Timeout, Principal] = {}
        self._watch: asyncio.Task[None] | None = None

    def add(self, limit: asyncio.Timeout, principal: Principal) -> None:
        """Watches a response: `limit` expires when its credential is not valid any more."""
        self._open[limit] = principal
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._check_periodically())

    def discard(self, limit: asyncio.Timeout) -> None:
        """The response has ended."""
        self._open.pop(limit, None)

    async def _check_periodically(self) -> None:
        while self._open:
            await asyncio.sleep(_CHECK_SECONDS)
            for principal in set(self._open.values()):
                if not await self._authenticator.is_valid(principal):
                    self._end(principal)

    def _end(self, principal: Principal) -> None:
        now = asyncio.get_running_loop().time()
        for limit, one in list(self._open.items()):
            if one == principal:
                del self._open[limit]
                limit.reschedule(now)


def is_open_ended(message: Message) -> bool:
    """Whether a message begins a stream or a WebSocket: a response without a length."""
    if message["type"] == "websocket.accept":
        return True
    return message["type"] == "http.response.start" and not any(
        name.lower() == b"content-length" for name, _ in message.get("headers", ())
    )


async def end_response(scope: Scope, send: Send, media_type: str) -> None:
    """Ends a response that has begun: a stream's last line is a problem."""
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
