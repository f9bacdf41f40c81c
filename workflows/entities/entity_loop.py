"""The main loop of an entity workflow."""

from collections.abc import Callable
from datetime import timedelta
from typing import NoReturn

from temporalio import workflow


async def run_entity_loop(
    is_done: Callable[[], bool],
    change_count: Callable[[], int],
    idle_timeout: timedelta,
    continue_as_new: Callable[[], NoReturn],
) -> None:
    """Runs until `is_done`, or until `change_count` has not risen for `idle_timeout`.

    No handler is in flight when it returns. When Temporal suggests continue-as-new, it waits for the handlers and
    calls `continue_as_new`.
    """
    while not is_done():
        seen = change_count()
        try:
            await workflow.wait_condition(
                lambda: is_done() or change_count() != seen,  # noqa: B023
                timeout=idle_timeout,
            )
        except TimeoutError:
            break
        if workflow.info().is_continue_as_new_suggested() and not is_done():
            await workflow.wait_condition(workflow.all_handlers_finished)
            continue_as_new()
    await workflow.wait_condition(workflow.all_handlers_finished)
