"""A further segment of a long stream: receives batches as the run does, and keeps them in its own history."""

import asyncio
from contextlib import suppress

from temporalio import workflow

from sevenfold.contracts import workflow_types
from sevenfold.contracts.runs.streams import StreamSegmentInput
from sevenfold.workflows.runs.stream_buffer import StreamBuffer


@workflow.defn(name=workflow_types.STREAM_SEGMENT)
class StreamSegment:
    """Starts with the first batch beyond the previous segment. Completes when the stream ends, or at `expires_at`: no
    segment is needed after the run's deadline.
    """

    @workflow.init
    def __init__(self, segment: StreamSegmentInput) -> None:
        self._stream = StreamBuffer()
        self._is_finished = False

    @workflow.run
    async def run(self, segment: StreamSegmentInput) -> None:
        """Waits for the end of the stream."""
        truncating = asyncio.create_task(self._stream.truncate())
        # The writer cancels the segment if the server accepts no more signals.
        with suppress(TimeoutError, asyncio.CancelledError):
            await workflow.wait_condition(
                lambda: self._is_finished, timeout=max(0.001, (segment.expires_at - workflow.now()).total_seconds())
            )
        truncating.cancel()
        self._stream.close()
        await workflow.wait_condition(workflow.all_handlers_finished)

    @workflow.signal(name="finish", description="The stream is complete.")
    def finish(self) -> None:
        """Sent by the writer after the last batch."""
        self._is_finished = True
