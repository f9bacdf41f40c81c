"""Large payloads outside the histories: a directory that all processes of a Sevenfold share."""

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

from sevenfold.adapters.payloads.stores import PayloadStoreError, lost_payload

log = structlog.get_logger(__name__)

# Above this a payload leaves the history; Temporal refuses those over 2 MB, and 50 MB of history.
THRESHOLD_BYTES = 256 * 1024

_DIGEST = re.compile(r"[0-9a-f]{64}")


class PayloadDirectory(StorageDriver):
    """Files named by the SHA-256 of what they hold, so that storing twice stores once.

    A claim holds nothing but that digest: no path that could lead outside, and a file that was changed is found
    out when it is read.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def name(self) -> str:
        """The name under which references in histories find this driver."""
        return "directory"

    async def store(
        self, context: StorageDriverStoreContext, payloads: Sequence[Payload]
    ) -> list[StorageDriverClaim]:
        """Writes the payloads; a file is there whole or not at all. Raises PayloadStoreError."""
        try:
            digests = await asyncio.to_thread(lambda: [self._write(p.SerializeToString()) for p in payloads])
        except OSError as error:
            raise PayloadStoreError(f"the payload directory cannot be written: {error.strerror}") from error
        return [StorageDriverClaim(claim_data={"sha256": digest}) for digest in digests]

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        """Reads them back; one that is gone or was changed as `lost_payload`. Raises PayloadStoreError when the
        directory itself is not there, or cannot be read.
        """
        return await asyncio.to_thread(
            lambda: [self._payload(claim.claim_data.get("sha256", "")) for claim in claims]
        )

    def _payload(self, digest: str) -> Payload:
        try:
            return Payload.FromString(self._read(digest))
        except FileNotFoundError as error:
            if not any(self._root.glob("??")):  # not mounted here, maybe
                raise PayloadStoreError(f"there is nothing in the payload directory {self._root}") from error
        except OSError as error:
            raise PayloadStoreError(f"the payload directory cannot be read: {error.strerror}") from error
        except (ValueError, DecodeError):
            pass
        log.error("a stored payload is gone or was changed", payload=digest)
        return lost_payload(digest)

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise ValueError("not a reference of the payload directory")
        return self._root / digest[:2] / digest

    def _write(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        with suppress(FileNotFoundError):
            os.utime(path)  # it is needed for as long as the newest of its runs
            return digest
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)
        return digest

    def _read(self, digest: str) -> bytes:
        data = self._path(digest).read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError(f"payload {digest} was changed on disk")
        return data

    async def remove_older_than(self, age: timedelta, namespace: str) -> int:
        """Removes what nobody has stored for that long, whatever the namespace, and says how many files that were."""
        return await asyncio.to_thread(self._remove, time.time() - age.total_seconds())

    def _remove(self, limit: float) -> int:
        # A file is put aside before it is removed: if somebody stored the same payload in between, its time tells,
        # and it is put back; if somebody does so afterwards, it is missing and written anew.
        removed = 0
        for path in self._root.glob("??/*"):
            with suppress(FileNotFoundError):  # another worker was faster
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
