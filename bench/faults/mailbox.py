"""A receiver of webhooks in the campaign's own process. It refuses some, so that deliveries are repeated as well."""

import asyncio
import json
import random
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105  (signs nothing but the campaign's own webhooks)

# Answered with 500.
_REFUSED = 0.1


@dataclass(frozen=True)
class Post:
    """What came, and whether it was taken."""

    id: str
    body: dict[str, Any]
    taken: bool


class Mailbox:
    """An ASGI application; every path is a receiver by itself."""

    def __init__(self, port: int, rng: random.Random) -> None:
        """Nothing has come yet."""
        self._port = port
        self._rng = rng
        self._posts: defaultdict[str, list[Post]] = defaultdict(list)
        self._received: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def url(self, path: str) -> str:
        """Where webhooks for a path are posted to."""
        return f"http://127.0.0.1:{self._port}{path}"

    def taken(self, path: str) -> list[Post]:
        """What was taken at a path."""
        return [post for post in self._posts[path] if post.taken]

    async def until_taken(self, path: str) -> None:
        """Wait for one, and a moment longer for a second that should not be."""
        await self._received[path].wait()
        await asyncio.sleep(0.5)

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        """Answer one post."""
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        post = Post(headers["webhook-id"], json.loads(body), taken=self._rng.random() >= _REFUSED)
        self._posts[scope["path"]].append(post)
        if post.taken:
            self._received[scope["path"]].set()
        await send({"type": "http.response.start", "status": 204 if post.taken else 500, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the campaign."""
        yield


@asynccontextmanager
async def running_mailbox(rng: random.Random) -> AsyncIterator[Mailbox]:
    """Listen on a free port."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        mailbox = Mailbox(sock.getsockname()[1], rng)
        config = uvicorn.Config(mailbox, log_config=None, access_log=False, lifespan="off")  # type: ignore[arg-type]
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        try:
            yield mailbox
        finally:
            server.should_exit = True
            await asyncio.wait({serving}, timeout=5)
