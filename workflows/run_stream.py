"""What a run's agent says, signalled to the run as Workflow Streams do it: their stock client can follow any run."""

from temporalio import workflow
from temporalio.contrib.workflow_streams import WorkflowStream

# Batches that a run keeps in memory, for stock clients that follow it while it runs.
_REMEMBERED = 20
_OFFSET_QUERY = "__temporal_workflow_stream_offset"


class RunStream:
    """Made where the workflow is."""

    def __init__(self) -> None:
        self._stream = WorkflowStream()

    async def forget_what_was_told(self) -> None:
        """Keeps the worker's memory of this run small: the history has it all, and our readers read that."""
        told = workflow.get_query_handler(_OFFSET_QUERY)
        assert told is not None, "WorkflowStream registers it"  # noqa: S101
        forgotten = 0
        while True:
            await workflow.wait_condition(lambda: told() - forgotten > 2 * _REMEMBERED)  # noqa: B023
            forgotten = told() - _REMEMBERED
            self._stream.truncate(forgotten)

    def end(self) -> None:
        """Tells those who follow it that nothing more comes."""
        self._stream.detach_pollers()
