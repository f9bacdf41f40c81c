"""What feeds a stream in its process."""

import asyncio

from sevenfold.adapters.streams.hub import HubState, StreamHub
from sevenfold.adapters.streams.log_feeder import RunSource
from sevenfold.contracts.agents.interface import Reply
from sevenfold.contracts.runs.run import RunOutcome, RunResult, RunStatus
from sevenfold.contracts.runs.streams import StreamEntry
from tests.support.processes import until
from tests.support.stack import Stack


class Silent:
    """A publisher whose entries the test appends."""

    def start_publishing(self) -> None:
        """There is nothing to publish."""


async def test_hub_awaits_the_outcome_only_after_its_publisher_detached(stack: Stack) -> None:
    stream = StreamHub("default:str_live", stack.streams.log, has_local_worker=True)
    waited = 0

    async def until_ended() -> RunOutcome:
        nonlocal waited
        waited += 1
        result = RunResult(reply=Reply(response="word"), duration_seconds=1, attempts=1, last_index=1)
        return RunOutcome(RunStatus.COMPLETED, result=result)

    publisher = Silent()
    stream.add_reader(RunSource(until_ended))  # before the agent begins, as most readers do
    await asyncio.sleep(0.05)
    assert stream.state is HubState.FED_BY_LOG
    stream.attach(publisher)
    assert stream.state is HubState.FED_BY_PUBLISHER
    stream.buffer.append(StreamEntry.chunk(1, "word"), confirmed=False)
    await asyncio.sleep(0.5)
    stream.raise_if_failed()
    assert not waited
    stream.detach(publisher)
    await until(lambda: stream.is_complete)
    assert stream.outcome().status is RunStatus.COMPLETED
    assert waited == 1
    await stream.remove_reader()
    assert stream.state is HubState.IDLE
