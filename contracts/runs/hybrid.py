"""Pattern 7: the request, the estimate of its duration, and the routing by that estimate."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from sevenfold.contracts.payload import JsonObject, Payload, Seconds
from sevenfold.contracts.runs.requests import StartOptions, TaskName
from sevenfold.contracts.runs.run import RunInput

_EXAMPLE: dict[str, Any] = {
    "query": "Where is my parcel?",
    "context": {"customerId": "12345"},
}


class HybridRequest(StartOptions):
    """Pattern 7: a query or a task. The response holds a short answer, or links to a run that continues."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    query: str | None = Field(default=None, min_length=1, description="The query for the agent.")
    task: TaskName | None = Field(
        default=None, description="What the agent does; defaults to `query` if there is a query."
    )
    context: JsonObject = Field(default={}, description="Background for the agent.")
    data: JsonObject = Field(default={}, description="What the agent works on.")
    duration_estimate: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] | None = Field(
        default=None, description="Expected duration in seconds, if you know it; otherwise measured durations count."
    )
    stream: bool = Field(default=False, description="Stream long work, at `links.stream`.")

    @model_validator(mode="after")
    def _check_question(self) -> "HybridRequest":
        if self.query is None and self.task is None:
            raise ValueError("give a query or a task")
        return self


class Route(StrEnum):
    """The pattern that serves a request."""

    SYNCHRONOUS = "synchronous"
    QUEUE = "queue"
    STREAMING = "streaming"


class EstimateBasis(StrEnum):
    """The source of an estimate."""

    CALLER = "caller"
    MEASURED = "measured"
    CONFIGURED = "configured"
    UNKNOWN = "unknown"


class Estimate(Payload):
    """The expected duration, in seconds. p50 and p95 are those of `runs` recent runs."""

    basis: EstimateBasis
    seconds: Seconds | None = None
    p50: Seconds | None = None
    p95: Seconds | None = None
    runs: int = 0


class HybridRouting(Payload):
    """The chosen route and the reason."""

    chosen: Route
    reason: str
    estimate: Estimate


class HybridInput(RunInput):
    """Input of `Hybrid`."""

    routing: HybridRouting


# The memo of a hybrid run with its routing.
ROUTING_MEMO = "routing"

# The p95 of fewer runs is not meaningful.
MIN_RUNS = 5


def choose_route(estimate: Estimate, threshold: float, *, stream: bool) -> HybridRouting:
    """Chooses the route. Work up to `threshold` seconds is synchronous; longer work is queued, or streamed if
    `stream` is set. Without an estimate the client waits for up to the threshold.
    """
    long_route = Route.STREAMING if stream else Route.QUEUE
    limit = f"the threshold of {threshold:g} s"
    match estimate:
        case Estimate(basis=EstimateBasis.CALLER, seconds=float() as seconds):
            subject = f"You expect {seconds:g} s"
        case Estimate(basis=EstimateBasis.MEASURED, p50=float() as p50, p95=float() as p95, runs=runs):
            measured = f"Of {runs} recent runs half took {p50:.2g} s, and 95 % no more than {p95:.2g} s"
            if p50 <= threshold < p95:
                reason = f"{measured}: it may be short, so the request waits up to {limit}."
                return HybridRouting(chosen=Route.SYNCHRONOUS, reason=reason, estimate=estimate)
            subject, seconds = measured, p95 if p95 <= threshold else p50
        case Estimate(basis=EstimateBasis.CONFIGURED, seconds=float() as seconds):
            subject = f"The agent's duration_estimate is {seconds:g} s"
        case _:
            reason = f"No duration is known yet: the request waits up to {limit}."
            return HybridRouting(chosen=Route.SYNCHRONOUS, reason=reason, estimate=estimate)
    if seconds <= threshold:
        return HybridRouting(chosen=Route.SYNCHRONOUS, reason=f"{subject}, within {limit}.", estimate=estimate)
    return HybridRouting(chosen=long_route, reason=f"{subject}, beyond {limit}.", estimate=estimate)
