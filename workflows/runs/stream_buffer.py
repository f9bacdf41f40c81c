"""What a run's agent says, signalled to the run as Workflow Streams do it: their stock client can follow any run."""

from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.contrib.workflow_streams import WorkflowStream

# For how long a run keeps in memory what it was told, for stock clients that follow it while it runs: they ask again
# ten times a second.
_RETENTION = timedelta(seconds=5)
_OFFSET_QUERY = "__temporal_workflow_stream_offset"


class StreamBuffer:
    """Made where the workflow is."""

    def __init__(self) -> None:
        self._stream = WorkflowStream()

    async def truncate(self) -> None:
        """Keeps the worker's memory of this run small: the history has it all, and our readers read that."""
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
        """Tells those who follow it that nothing more comes."""
        self._stream.detach_pollers()
