"""A run's outcome as clients get it: in responses, and in the body of webhooks."""

import math
from typing import Any

from pydantic import Field

from sevenfold.contracts.agents.interface import Confidence, Usage
from sevenfold.contracts.payload import JsonObject, Payload
from sevenfold.contracts.runs.run import ID_PREFIXES, Pattern, RunOutcome, RunResult, RunStatus
from sevenfold.contracts.webhooks.delivery import DeliverySubject

_ID_FIELDS = {
    Pattern.SYNCHRONOUS: "queryId",
    Pattern.QUEUE: "jobId",
    Pattern.POLLING: "taskId",
    Pattern.STREAMING: "streamId",
    Pattern.REACTION: "reactionId",
    Pattern.HYBRID: "hybridId",
}


class RunAnswer(Payload):
    """An agent's answer as clients get it."""

    response: str
    confidence: Confidence | None
    processing_time: str = Field(description="From the start of the run to the reply.", examples=["2.3s"])
    data: JsonObject | None = None
    usage: Usage | None = None

    @classmethod
    def from_result(cls, result: RunResult) -> "RunAnswer":
        """Converts a run's result."""
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
        """A job's result: the agent's `data`, or its response and confidence if it has none."""
        return self.data if self.data is not None else {"response": self.response, "confidence": self.confidence}


def processing_time(seconds: float) -> str:
    """Formats a duration: `"2.3s"`; below a second with milliseconds: `"0.017s"`."""
    return f"{seconds:.1f}s" if seconds >= 1 else f"{seconds:.3f}s"


def webhook_body(run_id: str, outcome: RunOutcome) -> dict[str, Any]:
    """Returns the webhook body of a run's outcome: `{taskId, status, result}`, or `error` instead of `result`."""
    pattern = _find_pattern(run_id)
    body: dict[str, Any] = {_ID_FIELDS[pattern]: run_id, "status": outcome.status}
    if outcome.result is not None:
        answer = RunAnswer.from_result(outcome.result)
        is_job = pattern is Pattern.QUEUE
        body["result"] = (
            answer.job_result if is_job else answer.model_dump(mode="json", by_alias=True, exclude_none=True)
        )
    if outcome.error is not None:
        body["error"] = outcome.error.model_dump(mode="json", by_alias=True, exclude_none=True)
    return body


def update_body(run_id: str, subject: DeliverySubject) -> dict[str, Any]:
    """Returns the webhook body of an update on an open run: `{taskId, status, event, sequence}`, and its progress or
    its questions.
    """
    body: dict[str, Any] = {
        _ID_FIELDS[_find_pattern(run_id)]: run_id,
        "status": RunStatus.PROCESSING,
        "event": subject.event,
        "sequence": subject.sequence,
    }
    if subject.progress is not None:
        body |= {"progress": math.floor(subject.progress.percent), "note": subject.progress.note}
    if subject.questions:
        asked = [one.model_dump(mode="json", by_alias=True) for one in subject.questions]
        body |= {"status": RunStatus.INPUT_REQUIRED, "requests": asked}
    return body


def _find_pattern(run_id: str) -> Pattern:
    return next(one for one, prefix in ID_PREFIXES.items() if run_id.startswith(f"{prefix}_"))
