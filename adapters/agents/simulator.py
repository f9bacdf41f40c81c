"""The agent for trying patterns, load and faults: duration, steps, text and failures come from the request's
`params`.
"""

import asyncio
from collections.abc import AsyncIterator

from pydantic import ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from sevenfold.adapters.agents.json_input import one_line, pointer_to
from sevenfold.contracts.agents.errors import AgentRejected, AgentUnavailable
from sevenfold.contracts.agents.interface import AgentContext, AgentEvent, AgentRequest, Delta, Progress, Reply, Usage
from sevenfold.contracts.agents.model_requests import without_model_options
from sevenfold.contracts.payload import Payload

MAX_TEXT = 10_000_000

# Without a pause, the agent yields to the event loop after this many steps.
_STEPS_BETWEEN_TURNS = 64


class SimulatorParams(Payload):
    """The `params` of a request, without the options of models. Unknown or wrongly typed ones are errors."""

    model_config = ConfigDict(extra="forbid", strict=True)

    # Duration of the whole answer in seconds.
    seconds: float = Field(default=1.0, ge=0, le=86_400, allow_inf_nan=False)
    # Number of progress updates and of text pieces.
    steps: int = Field(default=10, ge=1, le=100_000)
    text: str | None = Field(default=None, max_length=MAX_TEXT)
    # Size of the response in bytes: the text is truncated or repeated to exactly this size, in ASCII.
    size: int | None = Field(default=None, ge=0, le=MAX_TEXT)
    # Attempts 1 to `failures` fail with a transient error.
    failures: int = Field(default=0, ge=0, le=1_000_000)
    # The step at which an attempt fails, after the pieces of the steps before it.
    fail_at: int = Field(default=1, ge=1, le=100_000)
    # Tokens of output, reported in equal parts with the steps; without it, the words of query and text are counted.
    tokens: int | None = Field(default=None, ge=0, le=1_000_000_000)
    # Every attempt fails with a permanent error.
    permanent: bool = False

    @field_validator("text")
    @classmethod
    def _encodable(cls, text: str | None) -> str | None:
        # A lone surrogate is a valid Python string, but no encoder accepts it.
        try:
            (text or "").encode()
        except UnicodeEncodeError:
            raise ValueError("is not valid Unicode") from None
        return text

    @field_validator("fail_at")
    @classmethod
    def _reachable(cls, fail_at: int, info: ValidationInfo) -> int:
        steps = info.data.get("steps")
        if steps is not None and fail_at > steps:
            raise ValueError(f"is beyond the last step, {steps}")
        return fail_at


class SimulatorAgent:
    """Streams a text over a time, with the failures that `params` request.

    Raises `AgentUnavailable` on failing attempts, and `AgentRejected` if `permanent` (without a pointer) or if the
    params are invalid (with one).
    """

    async def run(self, request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
        """Each step: a pause, with `tokens` a `Usage`, a `Delta` unless its piece is empty, a `Progress`; then the
        `Reply`.
        """
        params = _parse(request)
        text = _text(params, request)
        clock = asyncio.get_running_loop().time
        start = clock()
        for step in range(1, params.steps + 1):
            # Sleeps until a point in time: thousands of short sleeps would add up to far more than `seconds`.
            await _sleep(start + params.seconds * step / params.steps - clock(), step)
            if params.tokens is not None:
                yield Usage(output_tokens=params.tokens * step // params.steps)
            if step == params.fail_at:
                _fail_if_asked(params, request.attempt)
            piece = text[len(text) * (step - 1) // params.steps : len(text) * step // params.steps]
            if piece:
                yield Delta(text=piece)
            yield Progress(percent=100 * step / params.steps, note=f"step {step} of {params.steps}")
        usage = _usage(request, text) if params.tokens is None else Usage(output_tokens=params.tokens)
        yield Reply(response=text, confidence=1.0, usage=usage)


async def _sleep(seconds: float, step: int) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)
    elif step % _STEPS_BETWEEN_TURNS == 0:
        await asyncio.sleep(0)


def _parse(request: AgentRequest) -> SimulatorParams:
    try:
        return SimulatorParams.model_validate(without_model_options(request.params), by_alias=True, by_name=False)
    except ValidationError as failure:
        first = failure.errors(include_url=False, include_context=False, include_input=False)[0]
        pointer = "/params"
        for key in first["loc"]:
            pointer = pointer_to(pointer, str(key))
        reason = one_line(first["msg"].removeprefix("Value error, "), 200)
        raise AgentRejected(f"The simulator cannot use {pointer}: {reason}.", pointer=pointer) from None


def _text(params: SimulatorParams, request: AgentRequest) -> str:
    text = params.text
    if text is None:
        about = f' You asked: "{one_line(request.query, 200)}".' if request.query else ""
        text = f"This is the simulator: no model was asked, and every step was rehearsed.{about}"
    if params.size is None:
        return text
    unit = text.encode("ascii", "replace").decode() or "."
    return (unit * (params.size // len(unit) + 1))[: params.size]


def _fail_if_asked(params: SimulatorParams, attempt: int) -> None:
    if params.permanent:
        raise AgentRejected("The simulator fails, because params.permanent is set.")
    if attempt <= params.failures:
        raise AgentUnavailable(f"The simulator fails attempts 1 to {params.failures}; this is attempt {attempt}.")


def _usage(request: AgentRequest, text: str) -> Usage:
    """Counts words in place of tokens, so that sums of usage have values."""
    return Usage(input_tokens=len((request.query or "").split()), output_tokens=len(text.split()))
