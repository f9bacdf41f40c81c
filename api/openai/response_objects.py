"""The objects of the Responses API: a response is a run, and its output the run's answer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sevenfold.api.http.problems import not_found
from sevenfold.api.openai.answers import describe_run, responses_usage, text_of, text_of_requests
from sevenfold.api.openai.requests import PREVIOUS, STORE, ResponsesRequest
from sevenfold.api.runs.views import Run
from sevenfold.contracts.agents.errors import ErrorCode
from sevenfold.contracts.agents.model_requests import INSTRUCTIONS, to_responses_format
from sevenfold.contracts.payload import JsonObject
from sevenfold.contracts.runs.outcomes import RunAnswer
from sevenfold.contracts.runs.run import Pattern, RunInput, RunStatus

ID_PREFIX = "resp_"

_STATUSES = {
    RunStatus.QUEUED: "queued",
    RunStatus.PROCESSING: "in_progress",
    RunStatus.INPUT_REQUIRED: "incomplete",
    RunStatus.COMPLETED: "completed",
    RunStatus.FAILED: "failed",
    RunStatus.CANCELLED: "cancelled",
}

# Where people have to answer first: the API has no status for it.
INPUT_REQUIRED = {"reason": "input_required"}

_ERROR_CODES: dict[str | None, str] = {
    ErrorCode.AGENT_REJECTED: "invalid_prompt",
    ErrorCode.AGENT_RATE_LIMITED: "rate_limit_exceeded",
    ErrorCode.AGENT_BUSY: "rate_limit_exceeded",
    ErrorCode.QUOTA_EXCEEDED: "rate_limit_exceeded",
}

# The API's schema requires numbers, also of agents that know no such option.
_DEFAULTS = {"temperature": 1.0, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}

# What the API's schema requires and an agent has no use for.
_CONSTANTS: dict[str, Any] = {
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "truncation": "disabled",
    "top_logprobs": 0,
    "max_tool_calls": None,
    "service_tier": "default",
    "safety_identifier": None,
    "prompt_cache_key": None,
}


def to_response_id(run_id: str) -> str:
    """Returns the id of a run's response."""
    return f"{ID_PREFIX}{run_id}"


def to_run_id(response_id: str) -> str:
    """Returns the id of a response's run. Raises 404 for what is no id of a response."""
    if not response_id.startswith(ID_PREFIX):
        raise not_found("This response")
    return response_id.removeprefix(ID_PREFIX)


@dataclass(frozen=True)
class ResponseHead:
    """What is known of a response before it has an answer. `created_at`: seconds since 1970."""

    run_id: str
    model: str
    created_at: int
    background: bool = False
    params: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    metadata: JsonObject = field(default_factory=dict)

    @classmethod
    def of_request(cls, run_id: str, request: ResponsesRequest) -> "ResponseHead":
        """Returns the head of a run that this request has just started."""
        options = request.start_options()
        context = {
            INSTRUCTIONS: request.instructions,
            PREVIOUS: request.previous_response_id,
            STORE: request.store,
        }
        now, background = int(datetime.now(UTC).timestamp()), bool(request.background)
        return cls(run_id, request.model, now, background, options.params, context, options.metadata)

    @classmethod
    def of_run(cls, run: Run, run_input: RunInput) -> "ResponseHead":
        """Returns the head of a run that exists."""
        asked = run_input.request
        created = int(run.created_at.timestamp())
        is_background = run.pattern is not Pattern.SYNCHRONOUS
        return cls(run.id, run.agent, created, is_background, asked.params, asked.context, run.metadata)

    def build(
        self, status: RunStatus, output: list[dict[str, Any]], described: JsonObject | None = None, **more: Any
    ) -> dict[str, Any]:
        """Returns the response object. `described` is its member `sevenfold`."""
        given, effort = self.params.get("response_format"), self.params.get("reasoning_effort")
        output_format = given if isinstance(given, dict) else {"type": "text"}
        return {
            "id": to_response_id(self.run_id),
            "object": "response",
            "created_at": self.created_at,
            "status": _STATUSES[status],
            "background": self.background,
            "completed_at": None,
            "error": None,
            "incomplete_details": INPUT_REQUIRED if status is RunStatus.INPUT_REQUIRED else None,
            "instructions": self.context.get(INSTRUCTIONS),
            "max_output_tokens": limit if type(limit := self.params.get("max_completion_tokens")) is int else None,
            "model": self.model,
            "output": output,
            "previous_response_id": self.context.get(PREVIOUS),
            "store": self.context.get(STORE) is not False,
            "reasoning": {"effort": effort if isinstance(effort, str) else None, "summary": None},
            **{name: self._number(name, default) for name, default in _DEFAULTS.items()},
            "text": {"format": to_responses_format(output_format)},
            "usage": None,
            "metadata": {name: _to_text(value) for name, value in self.metadata.items()},
            **_CONSTANTS,
            "sevenfold": described or describe_run(self.run_id),
            **more,
        }

    def _number(self, name: str, default: float) -> float:
        given = self.params.get(name)
        return given if isinstance(given, int | float) and not isinstance(given, bool) else default

    def build_completed(self, answer: RunAnswer, item: dict[str, Any], completed_at: float) -> dict[str, Any]:
        """Returns the response of a run that has completed, with its one message."""
        return self.build(
            RunStatus.COMPLETED,
            [item],
            describe_run(self.run_id, answer),
            completed_at=int(completed_at),
            usage=responses_usage(answer.usage),
        )


def build_message(run_id: str, reset_index: int, text: str, status: str) -> dict[str, Any]:
    """Returns an item of the output: a message, which begins after the reset with this index (0: the first)."""
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {
        "id": f"msg_{run_id}_{reset_index}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [part] if text or status != "in_progress" else [],
    }


def build_response(run: Run, run_input: RunInput, reset_index: int = 0) -> dict[str, Any]:
    """Returns the response of a run as it is now."""
    head = ResponseHead.of_run(run, run_input)
    if run.result is not None:
        item = build_message(run.id, reset_index, text_of(run.result), "completed")
        return head.build_completed(run.result, item, run.closed_at.timestamp() if run.closed_at else head.created_at)
    if run.requests:
        item = build_message(run.id, reset_index, text_of_requests(run.requests), "incomplete")
        return head.build(run.status, [item], describe_run(run.id, None, run.requests))
    described = describe_run(run.id)
    if run.error is None:
        return head.build(run.status, [], described)
    described["error"] = run.error.model_dump(mode="json", by_alias=True, exclude_none=True)
    return head.build(run.status, [], described, error=build_error(run.error.code, run.error.detail))


def build_error(code: str | None, message: str) -> dict[str, str]:
    """Returns the error of a response. The API has few codes: clients repeat `server_error`, and give up
    `invalid_prompt`. `code`: the run's ErrorCode.
    """
    return {"code": _ERROR_CODES.get(code, "server_error"), "message": message}


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
