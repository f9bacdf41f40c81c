"""Pattern 7: what is asked when nobody wants to say how long it will take, and how it is answered."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from sevenfold.contracts.payload import JsonObject, Payload, Seconds
from sevenfold.contracts.requests import StartOptions, TaskName
from sevenfold.contracts.runs import RunInput

_EXAMPLE: dict[str, Any] = {
    "query": "Where is my parcel?",
    "context": {"customerId": "12345"},
}


class HybridRequest(StartOptions):
    """Pattern 7: a question or a task, answered at once if it is short, else worked on while the client goes on."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    query: str | None = Field(default=None, min_length=1, description="What the agent is asked.")
    task: TaskName | None = Field(default=None, description="What the agent shall do; `query` if there is a query.")
    context: JsonObject = Field(default={}, description="What the agent should know.")
    data: JsonObject = Field(default={}, description="What the agent works on.")
    duration_estimate: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] | None = Field(
        default=None, description="How long it will take, in seconds, if you know; else what was measured counts."
    )
    stream: bool = Field(default=False, description="Long work is followed while it goes on, at `links.stream`.")

    @model_validator(mode="after")
    def _check_question(self) -> "HybridRequest":
        if self.query is None and self.task is None:
            raise ValueError("give a query or a task")
        return self


class Route(StrEnum):
    """Which of the other patterns a request is answered by."""

    SYNCHRONOUS = "synchronous"
    QUEUE = "queue"
    STREAMING = "streaming"


class EstimateBasis(StrEnum):
    """What an estimate comes from."""

    CALLER = "caller"
    MEASURED = "measured"
    CONFIGURED = "configured"
    UNKNOWN = "unknown"


class Estimate(Payload):
    """How long it is expected to take, in seconds. p50 and p95 are those of `runs` recent runs."""

    basis: EstimateBasis
    seconds: Seconds | None = None
    p50: Seconds | None = None
    p95: Seconds | None = None
    runs: int = 0


class Routing(Payload):
    """How a request is answered, and why."""

    chosen: Route
    reason: str
    estimate: Estimate


class HybridInput(RunInput):
    """The one object that `Hybrid` takes."""

    routing: Routing


# The memo of a Hybrid that holds its Routing.
ROUTING_MEMO = "routing"

# A p95 of fewer runs says nothing.
MIN_RUNS = 5


def choose_route(estimate: Estimate, threshold: float, *, stream: bool) -> Routing:
    """Short work is answered at once. Long work is queued, or streamed if somebody wants to watch. What is not known
    is tried, as long as the threshold (in seconds) allows.
    """
    long_route = Route.STREAMING if stream else Route.QUEUE
    limit = f"the threshold of {threshold:g} s"
    match estimate:
        case Estimate(basis=EstimateBasis.CALLER, seconds=float() as seconds):
            subject = f"You expect {seconds:g} s"
        case Estimate(basis=EstimateBasis.MEASURED, p50=float() as p50, p95=float() as p95, runs=runs):
            measured = f"Of {runs} recent runs half took {p50:.2g} s, and 95 % no more than {p95:.2g} s"
            if p50 <= threshold < p95:
                reason = f"{measured}: it may be short, so {limit} is waited for."
                return Routing(chosen=Route.SYNCHRONOUS, reason=reason, estimate=estimate)
            subject, seconds = measured, p95 if p95 <= threshold else p50
        case Estimate(basis=EstimateBasis.CONFIGURED, seconds=float() as seconds):
            subject = f"The agent's duration_estimate is {seconds:g} s"
        case _:
            reason = f"Nobody knows yet how long it takes: {limit} is waited for."
            return Routing(chosen=Route.SYNCHRONOUS, reason=reason, estimate=estimate)
    if seconds <= threshold:
        return Routing(chosen=Route.SYNCHRONOUS, reason=f"{subject}, within {limit}.", estimate=estimate)
    return Routing(chosen=long_route, reason=f"{subject}, beyond {limit}.", estimate=estimate)
