"""Webhook endpoints in a given state of health."""

from datetime import UTC, datetime, timedelta

from temporalio.client import Client, WorkflowHandle

from sevenfold.contracts.webhooks.delivery import (
    ENDPOINT_MEMO,
    EndpointState,
    endpoint_workflow_id,
    webhook_task_queue,
)


async def start_paused_endpoint(client: Client, host: str, task_queue: str) -> WorkflowHandle[object, object]:
    """Starts the health workflow of an endpoint that has failed for thirteen hours and may be probed now."""
    now = datetime.now(UTC)
    state = EndpointState(failing_since=now - timedelta(hours=13), failures=5, is_paused=True, probed_at=None)
    return await client.start_workflow(
        "EndpointHealth",
        state,
        id=endpoint_workflow_id("default", host),
        task_queue=webhook_task_queue(task_queue),
        memo={ENDPOINT_MEMO: state},
    )
