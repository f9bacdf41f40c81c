"""An agent behind HTTP: what it costs to ship a parcel. Run it by `uvicorn fastapi_agent:app --port 9001`."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

app = FastAPI()

PRICES = {"NO": 19.0, "DE": 7.5, "US": 24.0}


class Asked(BaseModel):
    """What Sevenfold posts, as far as it is used here."""

    runId: str  # noqa: N815
    attempt: int
    task: str
    query: str | None = None
    context: dict[str, Any] = {}


@app.post("/run", response_model=None)
async def run(asked: Asked, x_request_timeout: Annotated[float, Header()] = 30) -> dict[str, Any] | StreamingResponse:
    """Answers with JSON; step by step where that is the task. `x_request_timeout`: the seconds that there are."""
    country = str(asked.context.get("country", ""))
    if country not in PRICES:
        # Refused for good. (A 5xx or a broken connection is tried again.)
        raise HTTPException(422, f"we do not ship to {country or 'nowhere'}; to {', '.join(sorted(PRICES))} we do")
    price = PRICES[country] + 2 * float(asked.context.get("kilograms", 1))
    if asked.task == "explain":
        return StreamingResponse(_explained(country, price), media_type="application/x-ndjson")
    return {
        "response": f"It costs {price:.2f} €.",
        "confidence": 1,
        "data": {"price": price, "timeout": x_request_timeout},
    }


async def _explained(country: str, price: float) -> AsyncIterator[str]:
    for number, piece in enumerate((f"To {country} ", "we ship by air, ", f"for {price:.2f} €."), 1):
        yield json.dumps({"text": piece}) + "\n"
        yield json.dumps({"percent": 30 * number, "note": f"step {number}"}) + "\n"
        await asyncio.sleep(0.1)
    yield json.dumps({"done": True, "data": {"price": price}}) + "\n"
