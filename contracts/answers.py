"""How a run ended, as clients see it: in answers, and in what is posted to their webhooks."""

from pydantic import Field

from contracts.agent import Confidence, Usage
from contracts.payload import JsonObject, Payload
from contracts.runs import RunResult


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


def processing_time(seconds: float) -> str:
    """`"2.3s"`; below a second in milliseconds' detail: `"0.017s"`."""
    return f"{seconds:.1f}s" if seconds >= 1 else f"{seconds:.3f}s"
