"""A real webhook receiver (uvicorn) that keeps its posts and answers by script."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from pydantic_core import from_json

from sevenfold.adapters.webhooks.signatures import verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

Send = Callable[[dict[str, Any]], Awaitable[None]]
Answer = int | Callable[[Send], Awaitable[None]]


@dataclass(frozen=True)
class Post:
    """What came."""

    at: float
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return dict(from_json(self.body))

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def check(self, *secrets: str) -> None:
        """Raises if it is not signed by the secret."""
        verify(secrets or [SECRET], self.headers, self.body, now=time.time())


@dataclass
class Receiver:
    """Answers the next posts with `answers`, in turn, and then with 204."""

    port: int
    posts: list[Post] = field(default_factory=list)
    # those of the connections on which they came
    ports: set[int] = field(default_factory=set)
    answers: list[Answer] = field(default_factory=list)
    # answers for paths of their own, so that tests can share a receiver
    by_path: dict[str, Answer] = field(default_factory=dict)
    _received: asyncio.Condition = field(default_factory=asyncio.Condition)

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def at(self, path: str) -> list[Post]:
        return [post for post in self.posts if post.path == path]

    async def received(self, path: str, count: int = 1, *, seconds: float = 20) -> list[Post]:
        """The posts at a path, once there are so many."""
        async with asyncio.timeout(seconds), self._received:
            await self._received.wait_for(lambda: len(self.at(path)) >= count)
        return self.at(path)

    async def __call__(self, scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.ports.add(scope["client"][1])
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        async with self._received:
            self.posts.append(Post(time.monotonic(), scope["path"], headers, body))
            self._received.notify_all()
        answer = self.by_path.get(scope["path"]) or (self.answers.pop(0) if self.answers else 204)
        await (simple(answer)(send) if isinstance(answer, int) else answer(send))


def simple(status: int, *headers: tuple[str, str], body: bytes = b"") -> Callable[[Send], Awaitable[None]]:
    """An answer with a status, headers and a body."""

    async def answer(send: Send) -> None:
        raw = [(name.encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})

    return answer


async def hangs(send: Send) -> None:
    """Never answers."""
    await asyncio.sleep(60)


async def drips(send: Send) -> None:
    """Answers, a byte a second."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(60):
        await send({"type": "http.response.body", "body": b".", "more_body": True})
        await asyncio.sleep(1)


async def floods(send: Send) -> None:
    """Answers with 100 MB."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(100):
        await send({"type": "http.response.body", "body": b"x" * 1_000_000, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def breaks(send: Send) -> None:
    """Announces a length and sends less: uvicorn closes the connection."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
    raise ConnectionResetError


class _Server(uvicorn.Server):
    """Leaves the signals to pytest."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def running_receiver(answers: Sequence[Answer] = ()) -> AsyncIterator[Receiver]:
    """A receiver on a free port."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        receiver = Receiver(sock.getsockname()[1], answers=list(answers))
        async with _serving(receiver, sock):
            yield receiver


@asynccontextmanager
async def running_app(app: Any) -> AsyncIterator[str]:
    """Any ASGI app on a free port: its address."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        async with _serving(app, sock):
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"


@asynccontextmanager
async def _serving(app: Any, sock: socket.socket) -> AsyncIterator[None]:
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await serving
