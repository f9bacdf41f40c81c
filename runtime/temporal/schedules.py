"""Creates Temporal Schedules."""

from contextlib import suppress
from datetime import timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleSpec,
)
from temporalio.service import RPCError

from sevenfold.runtime.startup import StartupError


async def ensure_daily(client: Client, workflow: str, task_queue: str) -> str:
    """Creates a daily schedule of a workflow without input, unless it exists. Returns the schedule's id.

    The default overlap policy skips a run while the previous one is still open. Raises StartupError.
    """
    schedule_id = f"schedule:{task_queue}:{workflow}"
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(workflow, id=schedule_id, task_queue=task_queue),
        # At night, with jitter, so that the gateways of one cluster do not run in the same minute.
        spec=ScheduleSpec(
            intervals=[ScheduleIntervalSpec(every=timedelta(days=1), offset=timedelta(hours=3))],
            jitter=timedelta(hours=1),
        ),
    )
    try:
        with suppress(ScheduleAlreadyRunningError):
            await client.create_schedule(schedule_id, schedule)
    except RPCError as error:
        raise StartupError(f"The schedule {schedule_id} cannot be created: {error.message}") from None
    return schedule_id
