"""Where payloads go that are too large for a history: a bucket if one is configured, else a directory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio.converter import ExternalStorage, StorageDriver

from sevenfold.adapters.payloads.directory import THRESHOLD_BYTES, PayloadDirectory
from sevenfold.runtime.settings import Settings
from sevenfold.runtime.startup import StartupError

_VARIABLE = "SEVENFOLD_PAYLOADS_S3_BUCKET"


def payload_directory(settings: Settings) -> PayloadDirectory:
    """Where large payloads are kept; the processes of one gateway share it."""
    return PayloadDirectory(settings.data_dir / "payloads")


def directory_storage(settings: Settings) -> ExternalStorage:
    """The directory alone."""
    return ExternalStorage(drivers=[payload_directory(settings)], payload_size_threshold=THRESHOLD_BYTES)


@asynccontextmanager
async def open_storage(settings: Settings) -> AsyncIterator[ExternalStorage]:
    """The storage that is configured, for as long as the block runs. Raises StartupError if it is not there."""
    if settings.payloads_s3_bucket is None:
        yield directory_storage(settings)
        return
    async with _open_bucket(settings.payloads_s3_bucket) as bucket:
        # The directory is still read: for the runs that were started before there was a bucket.
        yield ExternalStorage(
            drivers=[bucket, payload_directory(settings)],
            driver_selector=lambda context, payload: bucket,
            payload_size_threshold=THRESHOLD_BYTES,
        )


@asynccontextmanager
async def _open_bucket(name: str) -> AsyncIterator[StorageDriver]:
    # Imported here, for those who have a bucket: it takes half a second and 39 MB, and packages that are an extra.
    try:
        from sevenfold.adapters.payloads.s3 import BucketError, open_bucket  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise StartupError(
            f"{_VARIABLE} needs the extra `s3` ({error}): install 'temporalio[aioboto3]' beside Sevenfold, "
            "from a checkout with: .venv/bin/pip install -e '.[s3]'"
        ) from None
    try:
        async with open_bucket(name) as driver:
            yield driver
    except BucketError as error:
        raise StartupError(
            f"{_VARIABLE}={name} cannot be used: {error}. "
            "Credentials, region and endpoint are those of the standard AWS_* variables and files."
        ) from None
