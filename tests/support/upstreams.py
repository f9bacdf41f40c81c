"""Scripts of what an agent's server answers, for `tests.support.receivers.Receiver` behind a real uvicorn."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence

from tests.support.receivers import Send, simple

Script = Callable[[Send], Awaitable[None]]

JSON, SSE, NDJSON = "application/json", "text/event-stream", "application/x-ndjson"


def reply_script(body: object, status: int = 200, *headers: tuple[str, str]) -> Script:
    """JSON."""
    return simple(status, ("Content-Type", JSON), *headers, body=json.dumps(body).encode())


def streams(*pieces: str, form: str = SSE, pause: float = 0.0, resets: bool = False, hangs: float = 0.0) -> Script:
    """The pieces as they are, `pause` seconds apart; then it ends, or breaks the connection, or hangs."""

    async def script(send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", form.encode())]})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece.encode(), "more_body": True})
            await asyncio.sleep(pause)
        if resets:
            raise ConnectionResetError
        await asyncio.sleep(hangs)
        await send({"type": "http.response.body", "body": b""})

    return script


def events(*frames: object) -> list[str]:
    """Each as a server-sent event."""
    return [f"data: {one if isinstance(one, str) else json.dumps(one)}\n\n" for one in frames]


def chat_chunk(content: str | None = None, finish: str | None = None, **more: object) -> dict[str, object]:
    """A chunk of OpenAI's chat completions."""
    delta = {"content": content} if content is not None else {}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": "m"}
    return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}], **more}


def chat(*contents: str, finish: str = "stop", usage: tuple[int, int] = (11, 7), pause: float = 0.0) -> Script:
    """A whole completion, streamed as OpenAI does."""
    counted = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    chunks: Sequence[object] = [
        chat_chunk(""),
        *(chat_chunk(content) for content in contents),
        chat_chunk(finish=finish),
        {**chat_chunk(), "choices": [], "usage": counted},
        "[DONE]",
    ]
    return streams(*events(*chunks), pause=pause)
