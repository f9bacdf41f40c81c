"""Which workflow an activity works for."""

from temporalio import activity


def current_workflow_id() -> str:
    """The id of the workflow that called the activity. All of ours are called by one."""
    workflow_id = activity.info().workflow_id
    assert workflow_id is not None, "started by a workflow"  # noqa: S101
    return workflow_id
