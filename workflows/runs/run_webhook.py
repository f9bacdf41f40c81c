"""Starts a run's webhook workflows: its updates, and the delivery of its outcome."""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import FailureError

from sevenfold.contracts.agents.interface import Progress
from sevenfold.contracts.agents.questions import Question
from sevenfold.contracts.runs.run import GENERATION_MEMO, RunInput
from sevenfold.contracts.tracing import run_context
from sevenfold.contracts.webhooks.delivery import (
    UNKNOWN_SEQUENCES,
    DeliveryInput,
    DeliverySubject,
    QuestionsAsked,
    UpdatesInput,
    WebhookEvent,
    updates_workflow_id,
)
from sevenfold.workflows.runs.detached_child import start_detached_child
from sevenfold.workflows.webhooks.delivery import start_delivery
from sevenfold.workflows.webhooks.updates import WebhookUpdates, progress_interval

# How long a run may continue after its answers.
_AFTER_ANSWERS = timedelta(days=1)

T = TypeVar("T")


class RunWebhookDeliveries:
    """The webhook of one run, or none."""

    def __init__(self, run: RunInput, deadline: datetime) -> None:
        self._webhook = run.webhook
        self._generation = run.generation
        self._earlier_sequence = run.webhook_sequence
        info = workflow.info()
        self._traceparent = str(run_context(run.request_context.traceparent, info.workflow_id, info.run_id))
        self._deadline = deadline
        self._starting: asyncio.Task[None] | None = None
        self._reported_at: datetime | None = None
        self._reports: set[asyncio.Task[None]] = set()

    @property
    def progress_workflow_id(self) -> str | None:
        """The workflow that takes the agent's progress; None if nobody asks for it."""
        if self._webhook is None or WebhookEvent.PROGRESS not in self._webhook.events:
            return None
        return updates_workflow_id(workflow.info().workflow_id, self._generation)

    def start(self) -> None:
        """Starts `WebhookUpdates`, if the endpoint subscribes to updates; the run does not wait for it."""
        if self._webhook is not None and self._webhook.sends_updates:
            self._starting = asyncio.create_task(self._start_updates())

    def report_progress(self, progress: Progress) -> None:
        """Passes on progress that the workflow learns of, not more often than it is delivered."""
        target, now, started_at = self.progress_workflow_id, workflow.now(), workflow.info().start_time
        interval = progress_interval(now - started_at)
        if target is None or (self._reported_at is not None and now - self._reported_at < interval):
            return
        self._reported_at = now
        report = asyncio.create_task(self._signal_progress(target, progress))
        self._reports.add(report)
        report.add_done_callback(self._reports.discard)

    def report_questions(self, questions: Sequence[Question]) -> None:
        """Passes on what the agent asks, if the endpoint subscribes to updates."""
        if self._starting is None:
            return
        latest = max(one.expires_at for one in questions)
        asked = QuestionsAsked(questions=list(questions), deadline=max(self._deadline, latest + _AFTER_ANSWERS))
        report = asyncio.create_task(self._signal_questions(self._starting, asked))
        self._reports.add(report)
        report.add_done_callback(self._reports.discard)

    async def _signal_questions(self, starting: asyncio.Task[None], asked: QuestionsAsked) -> None:
        target = updates_workflow_id(workflow.info().workflow_id, self._generation)
        with suppress(FailureError):  # An operator may have ended it.
            await starting
            await workflow.get_external_workflow_handle(target).signal(WebhookUpdates.input_required, asked)

    async def deliver_outcome(self) -> None:
        """Has the outcome delivered. The caller's run ends right after it."""
        if self._webhook is None:
            return
        subject = DeliverySubject(endpoint_id=self._webhook.endpoint_id)
        if self._starting is not None:
            if await _uncancelled(self._finish_updates(self._starting)):
                return
            subject = subject.model_copy(update={"sequence": self._earlier_sequence + UNKNOWN_SEQUENCES})
        elif self._webhook.endpoint_id is not None:
            subject = subject.model_copy(update={"sequence": self._earlier_sequence + 1})
        if self._webhook.delivers_outcome:
            await start_delivery(
                DeliveryInput(
                    run_workflow_id=workflow.info().workflow_id,
                    webhook=self._webhook,
                    subject=subject,
                    generation=self._generation,
                    traceparent=self._traceparent,
                )
            )

    async def _start_updates(self) -> None:
        info = workflow.info()
        assert self._webhook is not None, "checked by the caller"  # noqa: S101
        await start_detached_child(
            WebhookUpdates.run,
            UpdatesInput(
                run_workflow_id=info.workflow_id,
                webhook=self._webhook,
                deadline=self._deadline,
                generation=self._generation,
                sequence=self._earlier_sequence,
                traceparent=self._traceparent,
            ),
            workflow_id=updates_workflow_id(info.workflow_id, self._generation),
            task_queue=self._webhook.task_queue,
            summary=f"updates to {self._webhook.host}",
            memo={GENERATION_MEMO: self._generation},
        )

    async def _finish_updates(self, starting: asyncio.Task[None]) -> bool:
        """Returns False if there is no `WebhookUpdates` any more: an operator or its deadline has ended it."""
        try:
            await starting
            target = updates_workflow_id(workflow.info().workflow_id, self._generation)
            await workflow.get_external_workflow_handle(target).signal(WebhookUpdates.finish)
        except FailureError:
            return False
        return True

    async def _signal_progress(self, target: str, progress: Progress) -> None:
        # Any single progress may be lost, also while WebhookUpdates is starting.
        with suppress(FailureError):
            await workflow.get_external_workflow_handle(target).signal(WebhookUpdates.progress, progress)


async def _uncancelled(work: Coroutine[Any, Any, T]) -> T:
    """Completes `work` also if the run is cancelled meanwhile: WebhookUpdates would wait for the end of a run that
    has ended.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
