"""An agent's limits, and the shares in them that processes hold: together never more than the limits."""

from contracts.payload import Payload, Seconds

# A process that has not asked again for so many seconds is taken for dead, and its share given away.
SHARE_SECONDS = 10.0


def limits_of(agent: str) -> str:
    """The workflow id of an agent's limits."""
    return f"limits:{agent}"


class Limits(Payload):
    """Calls at once, and calls a second, over all workers together; None for no limit."""

    max_concurrency: int | None = None
    rate: float | None = None


class ShareAsk(Payload):
    """What a process has and wants: calls under way, and as many as it could make now; `calls`: it makes any."""

    process: str
    limits: Limits
    busy: int
    wanted: int
    calls: bool


class ShareGrant(Payload):
    """What a process may use for SHARE_SECONDS: calls at once, and calls a second. Where `keep` is below `slots`,
    others wait for theirs: as its calls end, it goes down to so many.
    """

    slots: int
    keep: int
    rate: float


class Holding(Payload):
    """A process's share, and what it wants. In seconds of the workflow's clock: when it was `seen`, and since when it
    has places, or wants some and has none.
    """

    slots: int = 0
    rate: float = 0.0
    wanted: int = 0
    calls: bool = False
    seen: Seconds = 0.0
    since: Seconds = 0.0


class LimitsState(Payload):
    """The one object that `AgentLimits` takes."""

    holdings: dict[str, Holding] = {}
