"""How a run ended, as clients see it: in answers, and in what is posted to their webhooks."""

from typing import Any

from pydantic import Field

from contracts.agent import Confidence, Usage
from contracts.payload import JsonObject, Payload
from contracts.runs import ID_PREFIXES, Pattern, RunEnd, RunResult

_ID_NAMES = {
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
    def of(cls, result: RunResult) -> "Answer":
        """The wire's form of a run's result."""
        reply = result.reply
        return cls(
            response=reply.response,
            confidence=reply.confidence,
            processing_time=processing_time(result.seconds),
            data=reply.data,
            usage=reply.usage,
        )

    @property
    def said(self) -> JsonObject:
        """What a job shows as its result: what the agent structured, else what it said."""
        return self.data if self.data is not None else {"response": self.response, "confidence": self.confidence}


def processing_time(seconds: float) -> str:
    """`"2.3s"`; below a second in milliseconds' detail: `"0.017s"`."""
    return f"{seconds:.1f}s" if seconds >= 1 else f"{seconds:.3f}s"


def told_webhook(run_id: str, end: RunEnd) -> dict[str, Any]:
    """What is posted when a run has ended: `{taskId, status, result}`, or `error` in place of `result`."""
    pattern = next(one for one, prefix in ID_PREFIXES.items() if run_id.startswith(f"{prefix}_"))
    body: dict[str, Any] = {_ID_NAMES[pattern]: run_id, "status": end.status}
    if end.result is not None:
        answer = Answer.of(end.result)
        is_job = pattern is Pattern.QUEUE
        body["result"] = answer.said if is_job else answer.model_dump(mode="json", by_alias=True, exclude_none=True)
    if end.error is not None:
        body["error"] = end.error.model_dump(mode="json", by_alias=True, exclude_none=True)
    return body
