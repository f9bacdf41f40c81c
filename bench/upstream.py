"""`python -m bench.upstream PORT`: an agent's server, in a process of its own.

`/run` answers with JSON at once; `/v1/chat/completions` streams a completion as OpenAI does, its first token after
FIRST_TOKEN seconds; `/down` fails.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

FIRST_TOKEN = 0.1
TOKENS = 10

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

ANSWER = json.dumps({"response": "ok " * 60, "confidence": 0.9, "data": {"facts": list(range(20))}}).encode()


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answer one request."""
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    match scope["path"]:
        case "/run":
            await _answer(send, 200, ANSWER)
        case "/v1/chat/completions":
            await _complete(send)
        case "/down":
            await _answer(send, 503, b"{}")
        case _:
            await _answer(send, 200, b"{}")


async def _complete(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await asyncio.sleep(FIRST_TOKEN)
    for number in range(TOKENS):
        await _chunk(send, [{"index": 0, "delta": {"content": f"token {number} "}, "finish_reason": None}])
    await _chunk(send, [{"index": 0, "delta": {}, "finish_reason": "stop"}])
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def _chunk(send: Send, choices: list[Any]) -> None:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": choices}
    data = f"data: {json.dumps(chunk)}\n\n".encode()
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(
        app,  # type: ignore[arg-type]
        port=int(sys.argv[1]),
        http="httptools",
        lifespan="off",
        log_level="warning",
        access_log=False,
    )
