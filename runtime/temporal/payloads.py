"""The store of payloads that are too large for a history: an S3 bucket if one is configured, else a directory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    ExternalStorage,
    StorageDriver,
    StorageDriverSelectContext,
    StorageDriverWorkflowInfo,
)

from sevenfold.adapters.payloads.directory import THRESHOLD_BYTES, PayloadDirectory
from sevenfold.adapters.payloads.stores import FindKey, no_key
from sevenfold.contracts.access.tenant_registry import REGISTRY_WORKFLOW_ID
from sevenfold.contracts.agents.usage import is_ledger_id
from sevenfold.runtime.config.settings import Settings
from sevenfold.runtime.startup import StartupError

_VARIABLE = "SEVENFOLD_PAYLOADS_S3_BUCKET"


def payload_directory(settings: Settings, find_key: FindKey = no_key) -> PayloadDirectory:
    """Returns the directory of large payloads; all processes of one gateway share it."""
    return PayloadDirectory(settings.data_dir / "payloads", find_key)


def directory_storage(settings: Settings, find_key: FindKey = no_key) -> ExternalStorage:
    """Returns a storage with the directory only."""
    return _storage(payload_directory(settings, find_key))


def _storage(driver: StorageDriver, *others: StorageDriver) -> ExternalStorage:
    """Returns a storage that writes to `driver`, and reads from the others too."""

    def select(context: StorageDriverSelectContext, payload: Payload) -> StorageDriver | None:
        # Stores remove payloads by age. Registry and ledgers outlive that, so their state stays in their history.
        target = context.target
        workflow_id = target.id or "" if isinstance(target, StorageDriverWorkflowInfo) else ""
        return None if workflow_id == REGISTRY_WORKFLOW_ID or is_ledger_id(workflow_id) else driver

    return ExternalStorage(drivers=[driver, *others], driver_selector=select, payload_size_threshold=THRESHOLD_BYTES)


@asynccontextmanager
async def open_storage(settings: Settings, find_key: FindKey = no_key) -> AsyncIterator[ExternalStorage]:
    """The configured storage while the block runs. `find_key`: which key started a workflow. Raises StartupError if
    it cannot be used.
    """
    if settings.payloads_s3_bucket is None:
        yield directory_storage(settings, find_key)
        return
    async with _open_bucket(settings.payloads_s3_bucket, find_key) as bucket:
        # The directory stays readable for runs that started before the bucket was configured.
        yield _storage(bucket, payload_directory(settings))


@asynccontextmanager
async def _open_bucket(name: str, find_key: FindKey) -> AsyncIterator[StorageDriver]:
    # Imported on use: it takes half a second, 39 MB and an extra.
    try:
        from sevenfold.adapters.payloads.s3 import BucketError, open_bucket  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise StartupError(
            f"{_VARIABLE} needs the extra `s3` ({error}): install 'temporalio[aioboto3]' beside Sevenfold, "
            "from a checkout with: .venv/bin/pip install -e '.[s3]'"
        ) from None
    try:
        async with open_bucket(name, find_key) as driver:
            yield driver
    except BucketError as error:
        raise StartupError(
            f"{_VARIABLE}={name} cannot be used: {error}. "
            "Credentials, region and endpoint are those of the standard AWS_* variables and files."
        ) from None
