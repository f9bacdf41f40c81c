"""A further segment of a long stream: it takes batches as the run itself does, and keeps them in its history."""

import asyncio
from contextlib import suppress

from temporalio import workflow

from sevenfold.contracts.streams import StreamSegmentInput
from sevenfold.workflows.runs.stream_buffer import StreamBuffer


@workflow.defn(name="StreamSegment")
class StreamSegment:
    """Begins with the first batch that does not go into the segment before. Ends when the stream does, or by a timer:
    no later segment than its run's deadline allows is needed.
    """

    @workflow.init
    def __init__(self, segment: StreamSegmentInput) -> None:
        self._stream = StreamBuffer()
        self._finished = False

    @workflow.run
    async def run(self, segment: StreamSegmentInput) -> None:
        """Waits for the end of the stream."""
        truncating = asyncio.create_task(self._stream.truncate())
        # cancelled by the writer where the server takes no more signals
        with suppress(TimeoutError, asyncio.CancelledError):
            await workflow.wait_condition(
                lambda: self._finished, timeout=max(0.001, (segment.expires_at - workflow.now()).total_seconds())
            )
        truncating.cancel()
        self._stream.close()
        await workflow.wait_condition(workflow.all_handlers_finished)

    @workflow.signal(name="finish", description="The stream is complete.")
    def finish(self) -> None:
        """Sent by the writer after the last batch."""
        self._finished = True
