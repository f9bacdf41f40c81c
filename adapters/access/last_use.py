"""Records when keys were last used, to the minute."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime

import structlog
from temporalio.service import RPCError

from sevenfold.adapters.access.registry import TenantRegistryClient
from sevenfold.contracts.access.tenant_registry import LastUse

log = structlog.get_logger(__name__)

# Soon after the first use, so that somebody who tries a key sees it; then once a minute at most, for all keys.
_FIRST_DELAY_SECONDS = 3.0
_PERIOD_SECONDS = 60.0


class LastUseRecorder:
    """Collects the uses of this process and sends them to the registry in the background. A use that is lost with the
    process is recorded with the next one.
    """

    def __init__(self, registry: TenantRegistryClient) -> None:
        self._registry = registry
        self._known: dict[str, datetime] = {}
        self._unsent: dict[str, datetime] = {}
        self._sending: asyncio.Task[None] | None = None

    def record(self, key_id: str) -> None:
        """Records a use now."""
        minute = datetime.now(UTC).replace(second=0, microsecond=0)
        if self._known.get(key_id) == minute:
            return
        self._known[key_id] = self._unsent[key_id] = minute
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_periodically())

    async def aclose(self) -> None:
        """Sends what was not sent yet."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        with suppress(RPCError):
            await self._send()

    async def _send_periodically(self) -> None:
        delay = _FIRST_DELAY_SECONDS
        while self._unsent:
            await asyncio.sleep(delay)
            delay = _PERIOD_SECONDS
            try:
                await self._send()
            except RPCError as error:
                log.warning("the last use of keys cannot be recorded yet", error=error.message)

    async def _send(self) -> None:
        if not self._unsent:
            return
        sent = dict(self._unsent)
        await self._registry.record_use(LastUse(keys=sent))
        self._unsent = {key: at for key, at in self._unsent.items() if sent.get(key) != at}
