"""Numbers and starts the deliveries of one run whose endpoint asks for more than the outcome."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from temporalio import workflow

from sevenfold.contracts import workflow_types
from sevenfold.contracts.agents.interface import Progress
from sevenfold.contracts.agents.questions import Question
from sevenfold.contracts.webhooks.delivery import (
    DeliveryInput,
    DeliverySubject,
    QuestionsAsked,
    UpdatesInput,
    WebhookEvent,
)
from sevenfold.workflows.webhooks.delivery import Delivery, start_delivery

# A run may end after its deadline, when its workers were away. Then its outcome is delivered all the same.
_GRACE = timedelta(hours=1)

_MIN_INTERVAL = timedelta(seconds=0.5)
_MAX_PER_ELAPSED = 100

# Progress is old soon: it is attempted this often, and then no more is sent for a while.
_PROGRESS_ATTEMPTS = 3
_PAUSE = timedelta(minutes=5)


def progress_interval(elapsed: timedelta) -> timedelta:
    """Returns the minimum time between two progress deliveries of a run: it grows with the run, so that a day has
    less than a thousand.
    """
    return max(_MIN_INTERVAL, elapsed / _MAX_PER_ELAPSED)


@workflow.defn(name=workflow_types.WEBHOOK_UPDATES)
class WebhookUpdates:
    """A child of the run, which it outlives by moments. It alone gives out sequences, so that a retried call, a
    killed worker and a slow receiver leave no gap and repeat none.

    One progress delivery is open at a time; the next has the latest progress then.
    """

    @workflow.init
    def __init__(self, updates: UpdatesInput) -> None:
        self._updates = updates
        self._sequence = updates.sequence
        self._progress: Progress | None = None
        self._questions: list[list[Question]] = []
        self._deadline = updates.deadline
        self._is_finished = False
        self._is_starting = False

    @workflow.run
    async def run(self, updates: UpdatesInput) -> int:
        """Returns the last sequence. Without a `finish`, because an operator terminated the run, it ends an hour
        after the run's deadline.
        """
        if WebhookEvent.STARTED in updates.webhook.events:
            await self._start(WebhookEvent.STARTED)
        tasks = [asyncio.create_task(self._deliver_progress()), asyncio.create_task(self._deliver_questions())]
        if not await self._wait_for_end():
            return self._sequence
        # A delivery whose start is under way has its sequence, and is started.
        await workflow.wait_condition(lambda: not self._is_starting and not self._questions)
        for task in tasks:
            task.cancel()
        if updates.webhook.delivers_outcome:
            await self._start(WebhookEvent.COMPLETED)
        return self._sequence

    @workflow.signal(name="progress", description="The agent's latest progress.")
    def progress(self, progress: Progress) -> None:
        """Sent by the worker that calls the agent, or by the run."""
        if WebhookEvent.PROGRESS in self._updates.webhook.events:
            self._progress = progress

    @workflow.signal(name="input_required", description="The run's agent asks people.")
    def input_required(self, asked: QuestionsAsked) -> None:
        """Sent by the run, whose deadline moves."""
        self._deadline = max(self._deadline, asked.deadline)
        if WebhookEvent.INPUT_REQUIRED in self._updates.webhook.events:
            self._questions.append(asked.questions)

    @workflow.signal(name="finish", description="The run ends: its outcome is delivered.")
    def finish(self) -> None:
        """Sent by the run."""
        self._is_finished = True

    async def _wait_for_end(self) -> bool:
        """Waits for the signal `finish`; returns False if it does not come until well after the deadline."""
        while not self._is_finished:
            remaining = self._deadline + _GRACE - workflow.now()
            if remaining <= timedelta():
                return False
            with suppress(TimeoutError):
                await workflow.wait_condition(lambda: self._is_finished, timeout=remaining)
        return True

    async def _deliver_questions(self) -> None:
        while True:
            await workflow.wait_condition(lambda: bool(self._questions) and not self._is_starting)
            await self._start(WebhookEvent.INPUT_REQUIRED, questions=self._questions[0])
            self._questions.pop(0)

    async def _deliver_progress(self) -> None:
        while not self._is_finished:
            await workflow.wait_condition(lambda: self._progress is not None and not self._is_starting)
            progress, self._progress = self._progress, None
            delivery = await self._start(WebhookEvent.PROGRESS, progress)
            pause = progress_interval(workflow.now() - workflow.info().start_time)
            if delivery is not None:
                await workflow.wait([delivery])
                pause = pause if delivery.exception() is None else _PAUSE
            await workflow.sleep(pause)

    async def _start(
        self, event: WebhookEvent, progress: Progress | None = None, questions: Sequence[Question] = ()
    ) -> Delivery | None:
        updates, self._is_starting = self._updates, True
        self._sequence += 1
        webhook = updates.webhook
        if event is WebhookEvent.PROGRESS:
            webhook = webhook.model_copy(update={"schedule": webhook.schedule[:_PROGRESS_ATTEMPTS]})
        subject = DeliverySubject(
            event=event,
            sequence=self._sequence,
            progress=progress,
            questions=list(questions),
            endpoint_id=webhook.endpoint_id,
        )
        delivery = await start_delivery(
            DeliveryInput(
                run_workflow_id=updates.run_workflow_id,
                webhook=webhook,
                subject=subject,
                generation=updates.generation,
                traceparent=updates.traceparent,
            )
        )
        self._is_starting = False
        return delivery
