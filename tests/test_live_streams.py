"""What feeds a stream in its process."""

import asyncio

from adapters.streams.live import LiveStream
from contracts.agent import Reply
from contracts.runs import RunEnd, RunResult, RunStatus
from contracts.streams import StreamEntry
from tests.processes import until
from tests.stack import Stack


class Silent:
    """A publisher that is heard elsewhere."""

    def want(self) -> None:
        """Nothing to write: the test says what was published."""


async def test_the_runs_end_is_waited_for_only_when_its_agent_has_said_its_last_here(stack: Stack) -> None:
    stream = LiveStream("default:str_live", stack.streams.log, local=True)
    waited = 0

    async def until_ended() -> RunEnd:
        nonlocal waited
        waited += 1
        result = RunResult(reply=Reply(response="word"), seconds=1, attempts=1, last_index=1)
        return RunEnd(RunStatus.COMPLETED, result=result)

    publisher = Silent()
    stream.join(until_ended, None)  # before the agent begins, as most readers do
    await asyncio.sleep(0.05)
    stream.attach(publisher)
    stream.tail.append(StreamEntry.chunk(1, "word"), confirmed=False)
    await asyncio.sleep(0.5)
    stream.check()
    assert not waited
    stream.detach(publisher)
    await until(lambda: stream.complete)
    assert stream.end().status is RunStatus.COMPLETED
    assert waited == 1
    await stream.leave()
    assert stream.idle
