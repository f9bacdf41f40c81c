"""`python -m bench.webhook_receiver PORT`: a receiver of webhooks, in a process of its own.

Each path is a receiver by itself. Those below `/flaky` answer 500 to every delivery with a probability of 30 %, the
others take all. `GET` of a path is answered with what came there, a list of `Post`s as lists. A delivery has arrived
when its last byte has; the signature is looked at after that, and a wrong one is answered with 401.
"""

import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import uvicorn

from sevenfold.adapters.webhooks.signatures import SignatureError, verify

SIGNED_BY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
FLAKY = "/flaky"
FAILING = 0.3

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Post(NamedTuple):
    """One delivery that arrived: its webhook-id, whose it is, when the agent was done, and how it was answered."""

    id: str
    run: str
    arrived: float
    done: float
    status: int

    @property
    def taken(self) -> bool:
        """Whether the receiver took it."""
        return self.status < 300


class Receiver:
    """The application. Keeps what came, path by path."""

    def __init__(self) -> None:
        """Nothing has come."""
        self._posts: defaultdict[str, list[Post]] = defaultdict(list)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        path, body, more = scope["path"], b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        arrived = time.time()
        if scope["method"] == "GET":
            await _answer(send, 200, json.dumps(self._posts[path]).encode())
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        status = _judged(path, headers, body, arrived)
        payload = json.loads(body)
        # The time that the agent noted, in the form of `sevenfold.contracts.runs.outcomes`.
        done = payload["result"]["data"]["done"]
        run_id = payload.get("taskId") or payload["queryId"]
        self._posts[path].append(Post(headers["webhook-id"], run_id, arrived, done, status))
        await _answer(send, status)


def _judged(path: str, headers: dict[str, str], body: bytes, now: float) -> int:
    try:
        verify([SIGNED_BY], headers, body, now=now)
    except SignatureError:
        return 401
    return 500 if path.startswith(FLAKY) and random.random() < FAILING else 204


async def _answer(send: Send, status: int, body: bytes = b"") -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [] if status == 204 else headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(
        Receiver(),  # type: ignore[arg-type]
        port=int(sys.argv[1]),
        http="httptools",
        lifespan="off",
        log_level="warning",
        access_log=False,
    )
