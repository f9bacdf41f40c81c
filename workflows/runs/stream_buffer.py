"""The run's side of its stream: batches arrive as signals in the format of Workflow Streams, so a stock client can
follow any run.
"""

from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.contrib.workflow_streams import WorkflowStream

# How long a run keeps entries in memory for stock clients, which poll ten times a second. It is less than 4 s, the
# pause between two batches of a busy process, so that a run there keeps one batch and not two.
_RETENTION = timedelta(seconds=3)
_OFFSET_QUERY = "__temporal_workflow_stream_offset"


class StreamBuffer:
    """Wraps the run's WorkflowStream. Construct it in `@workflow.init`."""

    def __init__(self) -> None:
        self._stream = WorkflowStream()

    async def truncate(self) -> None:
        """Drops entries older than 3 s, which bounds the worker's memory per run. Our readers read the history
        instead.
        """
        offset = workflow.get_query_handler(_OFFSET_QUERY)
        assert offset is not None, "WorkflowStream registers it"  # noqa: S101
        recent: list[tuple[datetime, int]] = []
        known = 0
        while True:
            await workflow.wait_condition(lambda: offset() > known)  # noqa: B023
            now = workflow.now()
            recent.append((now, known))
            known = offset()
            while now - recent[0][0] > _RETENTION:
                del recent[0]
            self._stream.truncate(recent[0][1])

    def close(self) -> None:
        """Ends the polls of stock clients."""
        self._stream.detach_pollers()
