"""Records that a workflow without an end keeps in its memos, one in each. To read them needs no worker."""

from functools import partial
from typing import TypeVar

import structlog
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.encryption.key_ring import DecryptionError
from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.adapters.temporal.encoded import memo_names

log = structlog.get_logger(__name__)

T = TypeVar("T")


async def load_records(client: Client, workflow_id: str, prefix: str, record_type: type[T]) -> list[T]:
    """Returns the records whose memos have names with this prefix; none if the workflow does not run.

    A record that cannot be decoded is logged and left out: it must not affect the others. Raises DecryptionError if a
    key is missing here, because to leave out records then would lose events and deliveries for good.
    """
    try:
        description = await client.get_workflow_handle(workflow_id).describe()
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return []
    if description.status is not WorkflowExecutionStatus.RUNNING:
        return []
    names = [name for name in memo_names(description) if name.startswith(prefix)]
    found = await gather_bounded(partial(_decode, description, record_type), names)
    return [one for one in found if one is not None]


async def _decode(description: WorkflowExecutionDescription, record_type: type[T], memo: str) -> T | None:
    """Returns a record; None if it was removed or cannot be decoded."""
    try:
        return await description.memo_value(memo, None, type_hint=record_type)
    except DecryptionError:
        raise
    except Exception as error:
        log.error(
            "a stored record cannot be decoded and is ignored",
            workflow=description.id,
            memo=memo,
            error=type(error).__name__,
        )
        return None
