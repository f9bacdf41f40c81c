"""What a workflow does that stands for a thing, and lives on the news of it."""

from collections.abc import Callable
from datetime import timedelta
from typing import NoReturn

from temporalio import workflow


async def live_on_news(
    is_over: Callable[[], bool],
    told: Callable[[], int],
    forgotten_after: timedelta,
    begin_anew: Callable[[], NoReturn],
) -> None:
    """Returns when it is over, or when `told`, which counts the news, has not risen for so long; no handler is under
    way then. A history that has grown large is left behind by `begin_anew`, which continues as new.
    """
    while not is_over():
        before = told()
        try:
            await workflow.wait_condition(
                lambda: is_over() or told() != before,  # noqa: B023
                timeout=forgotten_after,
            )
        except TimeoutError:
            break
        if workflow.info().is_continue_as_new_suggested() and not is_over():
            await workflow.wait_condition(workflow.all_handlers_finished)
            begin_anew()
    await workflow.wait_condition(workflow.all_handlers_finished)
