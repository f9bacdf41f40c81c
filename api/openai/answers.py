"""What both APIs make of an agent's answer."""

import json
from typing import Any

from sevenfold.api.runs.approval_desk import InputRequest
from sevenfold.contracts.agents.interface import Usage
from sevenfold.contracts.runs.outcomes import RunAnswer


def text_of(answer: RunAnswer) -> str:
    """Returns the text of an answer: an agent that answers with data alone is shown as JSON."""
    if answer.response or answer.data is None:
        return answer.response
    return json.dumps(answer.data, ensure_ascii=False)


def text_of_requests(requests: list[InputRequest]) -> str:
    """Returns questions as text, with their links: these APIs have no other place that people see."""
    return "\n\n".join(f"{one.message}\n{one.url}" if one.url else one.message for one in requests)


def describe_run(
    run_id: str, answer: RunAnswer | None = None, requests: list[InputRequest] | None = None
) -> dict[str, Any]:
    """Returns the member `sevenfold`."""
    described: dict[str, Any] = {"runId": run_id}
    if answer is not None:
        described |= {"confidence": answer.confidence, "data": answer.data, "processingTime": answer.processing_time}
    if requests:
        described["requests"] = [one.model_dump(mode="json", by_alias=True) for one in requests]
    return described


def chat_usage(usage: Usage | None) -> dict[str, int]:
    """Returns usage as Chat Completions has it; zeros if the agent reports none."""
    used = usage or Usage()
    total = used.input_tokens + used.output_tokens
    return {"prompt_tokens": used.input_tokens, "completion_tokens": used.output_tokens, "total_tokens": total}


def responses_usage(usage: Usage | None) -> dict[str, Any]:
    """Returns usage as Responses has it; zeros if the agent reports none."""
    used = usage or Usage()
    return {
        "input_tokens": used.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": used.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": used.input_tokens + used.output_tokens,
    }
