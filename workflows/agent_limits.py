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
        now = workflow.now().timestamp()
        others = {
            process: holding
            for process, holding in self._holdings.items()
            if process != ask.process and now - holding.seen < SHARE_SECONDS
        }
        own = self._holdings.get(ask.process, Holding(since=now))
        slots, keep = _slots(ask, own, others, now)
        rate = _rate(ask, others)
        began = now if slots > 0 and own.slots == 0 else own.since
        holding = Holding(slots=slots, rate=rate, wanted=ask.wanted, calls=ask.calls, seen=now, since=began)
        self._holdings = {**others, ask.process: holding}
        self._tell(ask.limits)
        return ShareGrant(slots=slots, keep=keep, rate=rate)

    def _tell(self, limits: Limits) -> None:
        lines = [
            f"- {process}: {one.slots} calls at once, {one.rate:.3g} a second, wants {one.wanted}"
            for process, one in sorted(self._holdings.items())
        ]
        workflow.set_current_details(
            f"At most {limits.max_concurrency or 'any number of'} calls at once, and "
            f"{limits.rate or 'any number'} a second:\n\n" + "\n".join(lines)
        )


def _slots(ask: ShareAsk, own: Holding, others: dict[str, Holding], now: float) -> tuple[int, int]:
    """How many calls a process may make at once, and how many it shall go down to."""
    limit = ask.limits.max_concurrency
    if limit is None:
        return 0, 0
    free = max(0, limit - sum(holding.slots for holding in others.values()))
    wanting = 1 + sum(holding.wanted > 0 for holding in others.values())
    if any(holding.wanted > holding.slots for holding in others.values()):
        over = limit < wanting and own.slots > 0 and now - own.since >= _TURN
        keep = 0 if over else min(ask.wanted, max(1, limit // wanting))
    else:
        # what nobody else wants may be kept at hand
        keep = max(ask.wanted, limit // wanting)
    return max(ask.busy, min(free, keep)), min(keep, limit)


def _rate(ask: ShareAsk, others: dict[str, Holding]) -> float:
    """How many calls a second a process may begin."""
    limit = ask.limits.rate
    if limit is None:
        return 0.0
    free = max(0.0, limit - sum(holding.rate for holding in others.values()))
    calling = 1 + sum(holding.calls for holding in others.values())
    return min(free, limit / calling) if ask.calls else 0.0
