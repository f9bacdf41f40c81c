"""Large payloads in a directory that all processes of one gateway share."""

import asyncio
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import structlog
from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    StorageDriver,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
)

from sevenfold.adapters.metrics.streams import count_payload_error, count_payloads
from sevenfold.adapters.payloads.stores import (
    FindKey,
    PayloadOwner,
    PayloadStoreError,
    find_owner,
    lost_payload,
    no_key,
)
from sevenfold.contracts.identity import is_tenant_name

log = structlog.get_logger(__name__)

# Larger payloads are stored outside the history. Temporal refuses payloads over 2 MB and histories over 50 MB.
THRESHOLD_BYTES = 256 * 1024

_DIGEST = re.compile(r"[0-9a-f]{64}")

# The folder with a folder per tenant. No folder of payloads without a tenant has a name of its length.
_TENANTS = "tenants"

# The folder of a tenant with a folder per key. No folder of payloads has a name of its length.
_KEYS = "keys"
_KEY = re.compile(r"[0-9a-z]{1,40}")


class PayloadDirectory(StorageDriver):
    """Files named by the SHA-256 of their content, so that storing twice stores once per owner.

    A file is in the folder of its workflow's tenant, `tenants/acme/4f/4f3a…`, or of the key that started the run,
    `tenants/acme/keys/4k2v9q0c8x1m/4f/4f3a…`. Payloads without a tenant (those of circuits and limits) are in the
    root: `4f/4f3a…`.

    A claim holds only the owner and the digest: no path can lead outside, and reading detects a changed file.
    Temporal's context of a read does not name the workflow that reads, so a claim is believed. Only our converter
    makes claims: what a client sends is the content of a payload, never its encoding.
    """

    def __init__(self, root: Path, find_key: FindKey = no_key) -> None:
        self._root = root
        self._find_key = find_key

    def name(self) -> str:
        """The name by which references in histories find this driver."""
        return "directory"

    async def store(
        self, context: StorageDriverStoreContext, payloads: Sequence[Payload]
    ) -> list[StorageDriverClaim]:
        """Writes the payloads atomically. Raises PayloadStoreError."""
        owner = find_owner(context, self._find_key)
        folder = self._folder(owner)
        try:
            serialized = [payload.SerializeToString() for payload in payloads]
            written = await asyncio.to_thread(lambda: [_write(folder, data) for data in serialized])
        except OSError as error:
            count_payload_error(self.name(), "store")
            raise PayloadStoreError(f"the payload directory cannot be written: {error.strerror}") from error
        count_payloads(self.name(), "store", sum(size for _, size in written))
        claimed = {} if owner is None else {"tenant": owner.tenant, **({"key": owner.key} if owner.key else {})}
        return [StorageDriverClaim(claim_data={"sha256": digest, **claimed}) for digest, _ in written]

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        """Reads the payloads; a missing or changed one is returned as `lost_payload`.

        Raises PayloadStoreError if the directory itself is missing or unreadable.
        """
        try:
            found = await asyncio.to_thread(lambda: [self._payload(claim.claim_data) for claim in claims])
        except PayloadStoreError:
            count_payload_error(self.name(), "read")
            raise
        count_payloads(self.name(), "read", sum(payload.ByteSize() for payload in found))
        return found

    def _payload(self, claimed: Mapping[str, str]) -> Payload:
        digest = claimed.get("sha256", "")
        owner = PayloadOwner(claimed["tenant"], claimed.get("key")) if "tenant" in claimed else None
        try:
            return Payload.FromString(_read(self._folder(owner), digest))
        except FileNotFoundError as error:
            if not any(self._root.glob("*")):  # The directory may not be mounted here.
                raise PayloadStoreError(f"the payload directory {self._root} is empty") from error
        except OSError as error:
            raise PayloadStoreError(f"the payload directory cannot be read: {error.strerror}") from error
        except (ValueError, DecodeError):
            pass
        log.error("a stored payload is missing or was changed", payload=digest)
        return lost_payload(digest)

    def _folder(self, owner: PayloadOwner | None) -> Path:
        if owner is None:
            return self._root
        if not is_tenant_name(owner.tenant):
            raise ValueError("not a tenant of the payload directory")
        folder = self._root / _TENANTS / owner.tenant
        if owner.key is None:
            return folder
        if not _KEY.fullmatch(owner.key):
            raise ValueError("not a key of the payload directory")
        return folder / _KEYS / owner.key

    async def remove_older_than(self, age: timedelta, namespace: str) -> int:
        """Removes payloads that were not stored for `age`, in all namespaces; returns their number."""
        return await asyncio.to_thread(self._remove, time.time() - age.total_seconds())

    def _remove(self, limit: float) -> int:
        # A file is renamed before it is removed. If the same payload was stored in between, its time is newer and it
        # is renamed back; if it is stored afterwards, it is missing and is written again.
        removed = 0
        for path in _list_files(
            self._root, *self._root.glob(f"{_TENANTS}/*"), *self._root.glob(f"{_TENANTS}/*/{_KEYS}/*")
        ):
            with suppress(FileNotFoundError):  # Another worker was faster.
                if path.stat().st_mtime >= limit:
                    continue
                aside = path.with_name(f".{path.name}.old")
                path.rename(aside)
                if aside.stat().st_mtime >= limit:
                    aside.rename(path)
                else:
                    aside.unlink()
                    removed += 1
        return removed

    async def remove_tenant(self, tenant: str, namespace: str) -> int:
        """Removes all payloads of a tenant, in all namespaces; returns their number. What the tenant stores meanwhile
        may stay.
        """
        return await asyncio.to_thread(_remove_all, self._folder(PayloadOwner(tenant)))

    async def check_writable(self) -> None:
        """Raises PayloadStoreError if no file can be made."""

        def write() -> None:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._root) as file:
                file.write(b"x")

        try:
            await asyncio.to_thread(write)
        except OSError as error:
            raise PayloadStoreError(f"the payload directory cannot be written: {error.strerror}") from error

    async def measure(self, owner: PayloadOwner, namespace: str) -> int:
        """Returns the bytes of the payloads of a tenant with all its keys, or of one key, in all namespaces."""
        return await asyncio.to_thread(_measure, self._folder(owner))


def _list_files(*folders: Path) -> Iterator[Path]:
    """Yields the files of payloads in these folders, without those in folders of keys below."""
    for folder in folders:
        yield from folder.glob("??/*")


def _measure(folder: Path) -> int:
    size = 0
    for path in _list_files(folder, *folder.glob(f"{_KEYS}/*")):
        with suppress(FileNotFoundError):  # It was removed meanwhile.
            size += path.stat().st_size
    return size


def _remove_all(folder: Path) -> int:
    removed = 0
    keys = list(folder.glob(f"{_KEYS}/*"))
    for path in _list_files(folder, *keys):
        with suppress(FileNotFoundError):
            path.unlink()
            removed += not path.name.startswith(".")
    for directory in (*(found for one in (*keys, folder) for found in one.glob("??")), *keys, folder / _KEYS, folder):
        with suppress(OSError):  # It does not exist, or a payload was stored meanwhile.
            directory.rmdir()
    return removed


def _path(folder: Path, digest: str) -> Path:
    if not _DIGEST.fullmatch(digest):
        raise ValueError("not a reference of the payload directory")
    return folder / digest[:2] / digest


def _write(folder: Path, data: bytes) -> tuple[str, int]:
    """Returns the digest, and the bytes that were written: none if the file is there."""
    digest = hashlib.sha256(data).hexdigest()
    path = _path(folder, digest)
    with suppress(FileNotFoundError):
        os.utime(path)  # A payload is kept as long as the newest run that uses it.
        return digest, 0
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
    return digest, len(data)


def _read(folder: Path, digest: str) -> bytes:
    data = _path(folder, digest).read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"payload {digest} was changed on disk")
    return data
