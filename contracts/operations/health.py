"""Readiness: whether a process can serve, and what keeps it from serving."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from sevenfold.contracts.payload import Payload

OK = "ok"


class Health(StrEnum):
    """The result of a probe. `degraded`: it serves, and something is missing."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILING = "failing"


class Liveness(Payload):
    """The process is alive."""

    status: Health = Health.OK


class Readiness(Payload):
    """Whether the process can serve. Each dependency is `ok`, or the field states what is missing and what to do."""

    status: Health
    temporal: str = Field(examples=["ok"])
    worker: str = Field(examples=["ok"])
    build: str | None = Field(None, description="Which workers that get new runs are missing; absent if none is.")
    storage: str | None = Field(None, description="Why the data directory takes no writes; absent if it does.")
    payloads: str | None = Field(None, description="Why large payloads cannot be stored; absent if they can.")
    streams: str | None = Field(None, description="Why the log of streams cannot be used; absent if it can.")
    brokers: str | None = Field(None, description="The brokers that are not connected; absent without any.")
    since: dict[str, datetime] | None = Field(
        None, description="When this process first found each dependency missing; absent if none is."
    )
