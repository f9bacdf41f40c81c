"""Large payloads in a directory that all processes of one gateway share."""

import asyncio
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Sequence
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

from sevenfold.adapters.payloads.stores import PayloadStoreError, find_owner, lost_payload
from sevenfold.contracts.identity import is_tenant_name

log = structlog.get_logger(__name__)

# Larger payloads are stored outside the history. Temporal refuses payloads over 2 MB and histories over 50 MB.
THRESHOLD_BYTES = 256 * 1024

_DIGEST = re.compile(r"[0-9a-f]{64}")

# The folder with a folder per tenant. No folder of payloads without a tenant has a name of its length.
_TENANTS = "tenants"


class PayloadDirectory(StorageDriver):
    """Files named by the SHA-256 of their content, so that storing twice stores once per tenant.

    A file is in the folder of its workflow's tenant: `tenants/acme/4f/4f3a…`. Payloads without a tenant (those of
    circuits and limits, and all that were stored before there were tenants) are in the root: `4f/4f3a…`.

    A claim holds only the tenant and the digest: no path can lead outside, and reading detects a changed file.
    Temporal's context of a read does not name the workflow that reads, so a claim is believed. Only our converter
    makes claims: what a client sends is the content of a payload, never its encoding.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def name(self) -> str:
        """The name by which references in histories find this driver."""
        return "directory"

    async def store(
        self, context: StorageDriverStoreContext, payloads: Sequence[Payload]
    ) -> list[StorageDriverClaim]:
        """Writes the payloads atomically. Raises PayloadStoreError."""
        tenant = find_owner(context)
        folder = self._folder(tenant)
        try:
            digests = await asyncio.to_thread(lambda: [_write(folder, p.SerializeToString()) for p in payloads])
        except OSError as error:
            raise PayloadStoreError(f"the payload directory cannot be written: {error.strerror}") from error
        owner = {} if tenant is None else {"tenant": tenant}
        return [StorageDriverClaim(claim_data={"sha256": digest, **owner}) for digest in digests]

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        """Reads the payloads; a missing or changed one is returned as `lost_payload`.

        Raises PayloadStoreError if the directory itself is missing or unreadable.
        """
        return await asyncio.to_thread(
            lambda: [
                self._payload(claim.claim_data.get("tenant"), claim.claim_data.get("sha256", "")) for claim in claims
            ]
        )

    def _payload(self, tenant: str | None, digest: str) -> Payload:
        try:
            return Payload.FromString(_read(self._folder(tenant), digest))
        except FileNotFoundError as error:
            if not any(self._root.glob("*")):  # The directory may not be mounted here.
                raise PayloadStoreError(f"the payload directory {self._root} is empty") from error
        except OSError as error:
            raise PayloadStoreError(f"the payload directory cannot be read: {error.strerror}") from error
        except (ValueError, DecodeError):
            pass
        log.error("a stored payload is missing or was changed", payload=digest)
        return lost_payload(digest)

    def _folder(self, tenant: str | None) -> Path:
        if tenant is None:
            return self._root
        if not is_tenant_name(tenant):
            raise ValueError("not a tenant of the payload directory")
        return self._root / _TENANTS / tenant

    async def remove_older_than(self, age: timedelta, namespace: str) -> int:
        """Removes payloads that were not stored for `age`, in all namespaces; returns their number."""
        return await asyncio.to_thread(self._remove, time.time() - age.total_seconds())

    def _remove(self, limit: float) -> int:
        # A file is renamed before it is removed. If the same payload was stored in between, its time is newer and it
        # is renamed back; if it is stored afterwards, it is missing and is written again.
        removed = 0
        for path in (*self._root.glob("??/*"), *self._root.glob(f"{_TENANTS}/*/??/*")):
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
        return await asyncio.to_thread(_remove_all, self._folder(tenant))

    async def measure_tenant(self, tenant: str, namespace: str) -> int:
        """Returns the bytes of a tenant's payloads, in all namespaces."""
        return await asyncio.to_thread(_measure, self._folder(tenant))


def _measure(folder: Path) -> int:
    size = 0
    for path in folder.glob("??/*"):
        with suppress(FileNotFoundError):  # It was removed meanwhile.
            size += path.stat().st_size
    return size


def _remove_all(folder: Path) -> int:
    removed = 0
    for path in folder.glob("??/*"):
        with suppress(FileNotFoundError):
            path.unlink()
            removed += not path.name.startswith(".")
    for directory in (*folder.glob("??"), folder):
        with suppress(OSError):  # It does not exist, or a payload was stored meanwhile.
            directory.rmdir()
    return removed


def _path(folder: Path, digest: str) -> Path:
    if not _DIGEST.fullmatch(digest):
        raise ValueError("not a reference of the payload directory")
    return folder / digest[:2] / digest


def _write(folder: Path, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    path = _path(folder, digest)
    with suppress(FileNotFoundError):
        os.utime(path)  # A payload is kept as long as the newest run that uses it.
        return digest
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
    return digest


def _read(folder: Path, digest: str) -> bytes:
    data = _path(folder, digest).read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"payload {digest} was changed on disk")
    return data
