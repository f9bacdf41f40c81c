"""What a workflow does that stands for a thing, and lives on the news of it."""

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
    """Returns when it is over, or when `change_count`, which counts the news, has not risen for so long; no handler
    is under way then. A history that has grown large is left behind by `continue_as_new`, which continues as new.
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
