"""An agent's limits: divides them between the processes that call it."""

from datetime import timedelta

from temporalio import workflow

from contracts.limits import SHARE_SECONDS, Holding, Limits, LimitsState, ShareAsk, ShareGrant

_UNUSED_AFTER = timedelta(seconds=3 * SHARE_SECONDS)

# Where there are fewer slots than processes that want one, each has its turn of so many seconds.
_TURN = 2.0


@workflow.defn
class AgentLimits:
    """Begins with the first process that calls a limited agent, and ends when none does any more."""

    @workflow.init
    def __init__(self, state: LimitsState) -> None:
        self._holdings = dict(state.holdings)
        self._asked = 0

    @workflow.run
    async def run(self, state: LimitsState) -> None:
        """Waits for processes that ask."""
        asked = -1
        while asked != self._asked:
            asked = self._asked
            try:
                await workflow.wait_condition(workflow.info().is_continue_as_new_suggested, timeout=_UNUSED_AFTER)
            except TimeoutError:
                continue
            await workflow.wait_condition(workflow.all_handlers_finished)
            workflow.continue_as_new(LimitsState(holdings=self._holdings))
        await workflow.wait_condition(workflow.all_handlers_finished)

    @workflow.update(description="Gives a process its share.")
    def share(self, ask: ShareAsk) -> ShareGrant:
        """Has to be asked for again and again, as long as it is used."""
        self._asked += 1
        grant, self._holdings = divided(ask, self._holdings, workflow.now().timestamp())
        self._tell(ask.limits)
        return grant

    def _tell(self, limits: Limits) -> None:
        lines = [
            f"- {process}: {one.slots} calls at once, {one.rate:.3g} a second, wants {one.wanted}"
            for process, one in sorted(self._holdings.items())
        ]
        workflow.set_current_details(
            f"At most {limits.max_concurrency or 'any number of'} calls at once, and "
            f"{limits.rate or 'any number'} a second:\n\n" + "\n".join(lines)
        )


def divided(ask: ShareAsk, holdings: dict[str, Holding], now: float) -> tuple[ShareGrant, dict[str, Holding]]:
    """What a process may have beside the others, and what all have then. `now` in seconds."""
    others = {
        process: holding
        for process, holding in holdings.items()
        if process != ask.process and now - holding.seen < SHARE_SECONDS
    }
    own = holdings.get(ask.process, Holding(since=now))
    slots, keep = _slots(ask, own, others, now)
    rate = _rate(ask, others)
    began = own.since if (slots > 0) == (own.slots > 0) and ask.wanted else now
    holding = Holding(slots=slots, rate=rate, wanted=ask.wanted, calls=ask.calls, seen=now, since=began)
    return ShareGrant(slots=slots, keep=keep, rate=rate), {**others, ask.process: holding}


def _slots(ask: ShareAsk, own: Holding, others: dict[str, Holding], now: float) -> tuple[int, int]:
    """How many calls a process may make at once, and how many it shall go down to."""
    limit = ask.limits.max_concurrency
    if limit is None:
        return 0, 0
    free = max(0, limit - sum(holding.slots for holding in others.values()))
    wanted = {process: holding.wanted for process, holding in others.items() if holding.wanted}
    starving = [holding for holding in others.values() if holding.wanted > holding.slots]
    if not starving:
        # what nobody else wants may be kept at hand
        keep = min(limit, max(ask.wanted, limit // (1 + len(wanted))))
    elif limit <= len(wanted):
        keep = 0 if _turn_is_over(own, starving, now) else min(1, ask.wanted)
    else:
        keep = _fair_part(limit, ask.wanted, list(wanted.values()))
    return max(ask.busy, min(free, keep)), keep


def _turn_is_over(own: Holding, starving: list[Holding], now: float) -> bool:
    """Whether others are to be served: there are fewer places than processes that want one."""
    if own.slots:
        return now - own.since >= _TURN
    return any(not other.slots and other.since < own.since for other in starving)


def _fair_part(limit: int, wanted: int, others: list[int]) -> int:
    """Nobody has less than he wants as long as another has more than he; and all is given out."""
    left, parts = limit, len(others) + 1
    for other in sorted(others):
        if other > wanted:
            break
        left -= min(other, left // parts)
        parts -= 1
    return min(wanted, -(-left // parts))


def _rate(ask: ShareAsk, others: dict[str, Holding]) -> float:
    """How many calls a second a process may begin."""
    limit = ask.limits.rate
    if limit is None:
        return 0.0
    free = max(0.0, limit - sum(holding.rate for holding in others.values()))
    calling = 1 + sum(holding.calls for holding in others.values())
    return min(free, limit / calling) if ask.calls else 0.0
