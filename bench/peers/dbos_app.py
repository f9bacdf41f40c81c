"""A peer: FastAPI + DBOS on SQLite, as the DBOS guide puts them together.

`POST /run` runs a durable workflow with one step and returns its result. The default system database (SQLite,
as shipped) is used, so that the peer needs no server, like Sevenfold's embedded mode.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dbos import DBOS, DBOSConfig
from fastapi import FastAPI
from pydantic import BaseModel

config: DBOSConfig = {
    "name": "bench",
    "system_database_url": f"sqlite:///{os.environ['BENCH_DBOS_FILE']}",
    "log_level": "WARNING",
}
DBOS(config=config)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Launch and destroy DBOS with the API."""
    DBOS.launch()
    yield
    DBOS.destroy()


app = FastAPI(lifespan=lifespan)


class Query(BaseModel):
    """The body of the article's synchronous request."""

    query: str


@DBOS.step()
def answer(query: str) -> str:
    """Stand in for an agent that answers at once."""
    return "ok"


@DBOS.workflow()
def query_workflow(query: str) -> str:
    """Run the one step durably."""
    return answer(query)


@app.post("/run")
def run(body: Query) -> dict[str, str]:
    """Run the workflow and answer with its result."""
    return {"response": query_workflow(body.query)}


@app.get("/ready")
def ready() -> dict[str, str]:
    """Answer once the API serves."""
    return {"response": "ok"}
