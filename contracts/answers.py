"""How a run ended, as clients see it: in answers, and in what is posted to their webhooks."""

from typing import Any

from pydantic import Field

from sevenfold.contracts.agent import Confidence, Usage
from sevenfold.contracts.payload import JsonObject, Payload
from sevenfold.contracts.runs import ID_PREFIXES, Pattern, RunOutcome, RunResult

_ID_FIELDS = {
    Pattern.SYNCHRONOUS: "queryId",
    Pattern.QUEUE: "jobId",
    Pattern.POLLING: "taskId",
    Pattern.STREAMING: "streamId",
    Pattern.REACTION: "reactionId",
    Pattern.HYBRID: "hybridId",
}


class Answer(Payload):
    """What an agent answered, as clients see it."""

    response: str
    confidence: Confidence | None
    processing_time: str = Field(description="From the start of the run to the reply.", examples=["2.3s"])
    data: JsonObject | None = None
    usage: Usage | None = None

    @classmethod
    def from_result(cls, result: RunResult) -> "Answer":
        """The wire's form of a run's result."""
        reply = result.reply
        return cls(
            response=reply.response,
            confidence=reply.confidence,
            processing_time=processing_time(result.duration_seconds),
            data=reply.data,
            usage=reply.usage,
        )

    @property
    def job_result(self) -> JsonObject:
        """What a job shows as its result: what the agent structured, else what it said."""
        return self.data if self.data is not None else {"response": self.response, "confidence": self.confidence}


def processing_time(seconds: float) -> str:
    """`"2.3s"`; below a second in milliseconds' detail: `"0.017s"`."""
    return f"{seconds:.1f}s" if seconds >= 1 else f"{seconds:.3f}s"


def webhook_body(run_id: str, outcome: RunOutcome) -> dict[str, Any]:
    """What is posted when a run has ended: `{taskId, status, result}`, or `error` in place of `result`."""
    pattern = next(one for one, prefix in ID_PREFIXES.items() if run_id.startswith(f"{prefix}_"))
    body: dict[str, Any] = {_ID_FIELDS[pattern]: run_id, "status": outcome.status}
    if outcome.result is not None:
        answer = Answer.from_result(outcome.result)
        is_job = pattern is Pattern.QUEUE
        body["result"] = (
            answer.job_result if is_job else answer.model_dump(mode="json", by_alias=True, exclude_none=True)
        )
    if outcome.error is not None:
        body["error"] = outcome.error.model_dump(mode="json", by_alias=True, exclude_none=True)
    return body
