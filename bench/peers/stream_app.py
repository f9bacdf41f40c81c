"""A peer: the same agent behind a bare `StreamingResponse`, as FastAPI's guide has it.

Nothing is kept: a reader who is cut off loses the rest, and the agent ends with its reader. It serves under
Sevenfold's own path, so that one reader reads both. Run it with `uvicorn bench.peers.stream_app:app`.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from bench.agents import speaking
from sevenfold.contracts.agents.interface import Delta

app = FastAPI()


class Ask(BaseModel):
    """The body of a start; `speaking` is the one agent there is."""

    query: str
    agent: str
    params: dict[str, Any]


@app.post("/api/agent/stream")
async def stream(body: Ask) -> StreamingResponse:
    """Call the agent and forward its chunks."""
    return StreamingResponse(_events(body), media_type="text/event-stream")


async def _events(body: Ask) -> AsyncIterator[str]:
    index = 0
    async for event in speaking(body):
        if isinstance(event, Delta):
            index += 1
            frame = json.dumps({"chunk": event.text, "index": index}, separators=(",", ":"))
            yield f"data: {frame}\nid: {index}\n\n"
    yield 'event: done\ndata: {"chunk":"","done":true,"status":"completed"}\n\n'


@app.get("/ready")
async def ready() -> dict[str, str]:
    """Answer once the API serves."""
    return {"response": "ok"}
