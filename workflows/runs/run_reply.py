"""The reply to the broker's message that started a run."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

from sevenfold.activities.events.replies import RunReplies
from sevenfold.contracts import workflow_types
from sevenfold.contracts.identity import parse_public_id
from sevenfold.contracts.runs.message_runs import ReplyInput
from sevenfold.contracts.runs.run import GENERATION_MEMO, RunInput
from sevenfold.contracts.tracing import run_context
from sevenfold.workflows.runs.detached_child import start_detached_child

_ATTEMPT_TIMEOUT = timedelta(seconds=30)

# A reply that cannot be accepted as an event for this long is left to an operator.
_TIMEOUT = timedelta(hours=24)


@workflow.defn(name=workflow_types.RUN_REPLY)
class RunReply:
    """One reply. The run ends meanwhile; its outcome becomes an event, which is published like any other."""

    @workflow.run
    async def run(self, reply: ReplyInput) -> str:
        """Returns the public id of the event."""
        return await workflow.execute_activity_method(
            RunReplies.publish_reply,
            reply,
            start_to_close_timeout=_ATTEMPT_TIMEOUT,
            schedule_to_close_timeout=_TIMEOUT,
            retry_policy=RetryPolicy(maximum_interval=timedelta(minutes=1)),
        )


async def start_reply(run: RunInput) -> None:
    """Starts the reply to the message that started the current run, if one did. The caller's run ends right after
    it.
    """
    if run.reply is None:
        return
    info = workflow.info()
    to = run.reply.to or "the routes"
    await start_detached_child(
        RunReply.run,
        ReplyInput(
            run_workflow_id=info.workflow_id,
            address=run.reply,
            generation=run.generation,
            traceparent=str(run_context(run.request_context.traceparent, info.workflow_id, info.run_id)),
        ),
        workflow_id=f"{info.workflow_id}/reply/{run.generation}",
        task_queue=run.reply.task_queue,
        summary=f"{parse_public_id(info.workflow_id)} to {run.reply.broker}: {to}"[:200],
        memo={GENERATION_MEMO: run.generation},
    )
