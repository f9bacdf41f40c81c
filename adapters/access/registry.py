"""Reads and changes the workflow `TenantRegistry`."""

from datetime import timedelta
from typing import TypeVar

import structlog
from temporalio.client import Client, WithStartWorkflowOperation, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.temporal.encoded import decode_memo, encoded_memos
from sevenfold.adapters.temporal.updates import await_update
from sevenfold.contracts import workflow_types
from sevenfold.contracts.access.tenant_registry import (
    KEY_MEMO_PREFIX,
    LAST_USE_MEMO,
    REGISTRY_WORKFLOW_ID,
    TENANT_MEMO_PREFIX,
    KeyRecord,
    LastUse,
    LimitKeyInput,
    PutKeyInput,
    PutTenantInput,
    RotateKeyInput,
    TenantRecord,
    TenantRegistryState,
)
from sevenfold.contracts.agents.circuits import control_task_queue
from sevenfold.contracts.payload import Payload

log = structlog.get_logger(__name__)

T = TypeVar("T")

_READ_TIMEOUT = timedelta(seconds=2)
_CHANGE_TIMEOUT = timedelta(seconds=5)

_Record = TenantRecord | KeyRecord | LastUse


class UndecodableRecordError(Exception):
    """A record of the registry cannot be decoded, so the registry counts as unreadable."""


class RegistryEndedError(Exception):
    """The registry's workflow was ended. The next change starts an empty one."""


class TenantRegistryClient:
    """Reads the registry's memos, and decodes only those that changed since the last read."""

    def __init__(self, client: Client, task_queue: str) -> None:
        self._client = client
        self._task_queue = control_task_queue(task_queue)
        self._decoded: dict[str, tuple[bytes, _Record]] = {}

    async def read(self) -> TenantRegistryState:
        """Returns all records. Raises RPCError, UndecodableRecordError and RegistryEndedError."""
        try:
            handle = self._client.get_workflow_handle(REGISTRY_WORKFLOW_ID)
            description = await handle.describe(rpc_timeout=_READ_TIMEOUT)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            return TenantRegistryState()
        if description.status is not WorkflowExecutionStatus.RUNNING:
            # It has no end of its own: somebody ended it, or its state is lost. Its keys must not count as revoked.
            raise RegistryEndedError(description.status.name if description.status else "unknown")
        records = {name: await self._decode(name, memo) for name, memo in encoded_memos(description).items()}
        self._decoded = {name: one for name, one in self._decoded.items() if name in records}
        last_use = records.get(LAST_USE_MEMO)
        return TenantRegistryState(
            tenants={one.name: one for one in records.values() if isinstance(one, TenantRecord)},
            keys={one.id: one for one in records.values() if isinstance(one, KeyRecord)},
            last_use=last_use if isinstance(last_use, LastUse) else LastUse(),
        )

    async def _decode(self, memo: str, content: bytes) -> _Record:
        known = self._decoded.get(memo)
        if known is not None and known[0] == content:
            return known[1]
        try:
            record = await decode_memo(self._client, content, _record_type(memo))
        except Exception as error:
            log.error("a record of the tenant registry cannot be decoded", memo=memo, error=type(error).__name__)
            raise UndecodableRecordError(memo) from error
        self._decoded[memo] = (content, record)
        return record

    async def put_tenant(self, change: PutTenantInput) -> None:
        """Raises WorkflowUpdateFailedError, whose cause has one of the registry's failure types, and
        UpdateTimeoutError after 5 s without a worker.
        """
        await self._change("put_tenant", change)

    async def remove_tenant(self, name: str) -> None:
        """Removes the tenant and its keys. Idempotent."""
        await self._change("remove_tenant", name)

    async def put_key(self, change: PutKeyInput) -> None:
        """Raises as `put_tenant` does."""
        await self._change("put_key", change)

    async def rotate_key(self, change: RotateKeyInput) -> KeyRecord:
        """Returns the new key. Raises as `put_tenant` does."""
        return await self._change("rotate_key", change, KeyRecord)

    async def limit_key(self, change: LimitKeyInput) -> KeyRecord:
        """Replaces the quotas of a key. Raises as `put_tenant` does."""
        return await self._change("limit_key", change, KeyRecord)

    async def remove_key(self, key_id: str) -> None:
        """Revokes a key. Idempotent."""
        await self._change("remove_key", key_id)

    async def record_use(self, used: LastUse) -> None:
        """Records the last use of keys; needs no worker."""
        await self._client.start_workflow(
            workflow_types.TENANT_REGISTRY,
            TenantRegistryState(),
            id=REGISTRY_WORKFLOW_ID,
            task_queue=self._task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal="record_use",
            start_signal_args=[used],
            static_summary="tenants and keys",
            rpc_timeout=_CHANGE_TIMEOUT,
        )

    async def _change(self, update: str, argument: Payload | str, result_type: type[T] | None = None) -> T:
        start: WithStartWorkflowOperation[object, object] = WithStartWorkflowOperation(
            workflow_types.TENANT_REGISTRY,
            TenantRegistryState(),
            id=REGISTRY_WORKFLOW_ID,
            task_queue=self._task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary="tenants and keys",
        )
        change = self._client.execute_update_with_start_workflow(
            update, argument, start_workflow_operation=start, result_type=result_type
        )
        result: T = await await_update(change, _CHANGE_TIMEOUT)
        return result


def _record_type(memo: str) -> type[_Record]:
    if memo.startswith(TENANT_MEMO_PREFIX):
        return TenantRecord
    return KeyRecord if memo.startswith(KEY_MEMO_PREFIX) else LastUse
