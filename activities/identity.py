"""The workflow that an activity belongs to."""

from temporalio import activity

from sevenfold.contracts.identity import parse_tenant


def current_workflow_id() -> str:
    """Returns the id of the workflow that scheduled the activity. All our activities have one."""
    workflow_id = activity.info().workflow_id
    assert workflow_id is not None, "started by a workflow"  # noqa: S101
    return workflow_id


def current_tenant() -> str:
    """Returns the tenant of the workflow that scheduled the activity."""
    return parse_tenant(current_workflow_id())
