"""A peer: FastAPI + Celery + Redis, as their own guides put them together.

`POST /run` enqueues a task that answers at once, waits for its result and returns it. Run the API with
`uvicorn bench.peers.celery_app:app` and the worker with `celery -A bench.peers.celery_app:celery worker`.
Redis keeps its default persistence (a snapshot now and then) and Celery acknowledges a task before running it:
both lose work in a crash, which a durable workflow does not. The benchmark compares speed only.
"""

import os
from typing import Any

from celery import Celery
from fastapi import FastAPI
from pydantic import BaseModel

REDIS_URL = os.environ["BENCH_REDIS_URL"]

celery = Celery("bench", broker=REDIS_URL, backend=REDIS_URL)
app = FastAPI()


class Query(BaseModel):
    """The body of the article's synchronous request."""

    query: str


@celery.task(name="answer")
def answer(query: str) -> str:
    """Stand in for an agent that answers at once."""
    return "ok"


# Celery's result API blocks, so the endpoint is a plain function: FastAPI runs it in its thread pool.
@app.post("/run")
def run(body: Query) -> dict[str, Any]:
    """Enqueue the task and wait for what it returns."""
    return {"response": answer.delay(body.query).get(timeout=30)}


@app.get("/ready")
def ready() -> dict[str, str]:
    """Answer once a worker took a task: an API without a worker is not ready."""
    return {"response": answer.delay("ready").get(timeout=30)}
