"""The tenants and keys that a process knows, at most a second old."""

import asyncio
import time
from enum import Enum

import structlog
from temporalio.service import RPCError

from sevenfold.adapters.access.registry import RegistryEndedError, TenantRegistryClient, UndecodableRecordError
from sevenfold.adapters.access.snapshot import AccessSnapshot, ConfiguredAccess
from sevenfold.contracts.access.tenant_registry import TenantRegistryState

log = structlog.get_logger(__name__)

# A snapshot older than this is refreshed in the background; one older than a second is awaited.
_REFRESH_SECONDS = 0.5
_MAX_AGE_SECONDS = 1.0


class TenantErasingError(Exception):
    """The tenant's data are being removed, so nothing new is accepted for it."""


class DirectoryState(Enum):
    """UNREAD → CURRENT on the first read; CURRENT → UNAVAILABLE when a read fails; UNAVAILABLE → CURRENT when one
    succeeds; UNREAD → UNAVAILABLE when the first read fails.
    """

    UNREAD = "unread"
    CURRENT = "current"
    UNAVAILABLE = "unavailable"


class AccessDirectory:
    """Caches the registry. Without requests, nothing is read.

    Invariants:

    - At most one `_refresh` runs.
    - `_snapshot` holds what the last successful read found. It stays in use while the registry cannot be read; then
      its `is_current` is False.
    - In UNAVAILABLE nobody waits: requests get the snapshot at once, and a read is tried every 0.5 s.
    """

    def __init__(self, registry: TenantRegistryClient, configured: ConfiguredAccess) -> None:
        self.registry = registry
        self._snapshot = AccessSnapshot(configured, TenantRegistryState(), is_current=False)
        self._state = DirectoryState.UNREAD
        self._read_at = -_MAX_AGE_SECONDS
        self._refresh: asyncio.Task[None] | None = None

    @property
    def latest(self) -> AccessSnapshot:
        """What the last read found, without a read. A request's authentication has just loaded it."""
        return self._snapshot

    async def load(self) -> AccessSnapshot:
        """Returns the tenants and keys. Waits at most 2 s, and only if what it has is older than a second."""
        age = time.monotonic() - self._read_at
        if age >= _REFRESH_SECONDS:
            refresh = self._start_refresh()
            if age >= _MAX_AGE_SECONDS and self._state is not DirectoryState.UNAVAILABLE:
                await asyncio.shield(refresh)  # A cancelled request must not cancel it for the others.
        return self._snapshot

    async def check_not_erasing(self, tenant: str) -> None:
        """Raises TenantErasingError while the tenant's data are being removed."""
        if (await self.load()).is_erasing(tenant):
            raise TenantErasingError(f"The data of the tenant {tenant} are being erased.")

    async def reload(self) -> AccessSnapshot:
        """Returns the tenants and keys as they are now, after a change by this process."""
        if self._refresh is not None and not self._refresh.done():
            await asyncio.shield(self._refresh)  # It may have read before the change.
        await asyncio.shield(self._start_refresh())
        return self._snapshot

    async def find_weight(self, tenant: str) -> float:
        """Returns the tenant's share of busy task queues, compared with the other tenants' weights."""
        return (await self.load()).weight(tenant)

    def _start_refresh(self) -> asyncio.Task[None]:
        if self._refresh is None or self._refresh.done():
            self._refresh = asyncio.create_task(self._read())
        return self._refresh

    async def _read(self) -> None:
        started_at = time.monotonic()
        configured = self._snapshot.configured
        try:
            stored = await self.registry.read()
        except (RPCError, UndecodableRecordError, RegistryEndedError) as error:
            if self._state is not DirectoryState.UNAVAILABLE:
                log.warning("tenants and keys cannot be read", error=repr(error))
            self._state = DirectoryState.UNAVAILABLE
            self._snapshot = AccessSnapshot(configured, self._snapshot.stored, is_current=False)
            # Counted from the failure, so that the next read starts 0.5 s after it.
            self._read_at = time.monotonic()
            return
        if self._state is DirectoryState.UNAVAILABLE:
            log.info("tenants and keys can be read again")
        self._state, self._read_at = DirectoryState.CURRENT, started_at
        self._snapshot = AccessSnapshot(configured, stored, is_current=True)
