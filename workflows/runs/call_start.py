"""How a call of an agent begins."""

from dataclasses import dataclass

from sevenfold.contracts.agents.steps import StreamMark
from sevenfold.contracts.agents.usage import NO_USAGE, UsageTotals


@dataclass(frozen=True)
class CallStart:
    """After which attempts a call begins and what they have used, whether one was started inline, and whether readers
    wait for its stream. `mark`: the text of the turn before, which readers have.
    """

    prior_attempts: int = 0
    prior_usage: UsageTotals = NO_USAGE
    started_inline: bool = False
    is_streamed: bool = False
    mark: StreamMark | None = None


FIRST_CALL = CallStart()
