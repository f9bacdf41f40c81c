"""Joins concurrent requests into calls for up to ten entries, which is what AWS's batch operations take."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from botocore.exceptions import ClientError

from sevenfold.adapters.brokers.message import UnpublishableError

Entry = TypeVar("Entry")

_MAX_ENTRIES = 10

# How long the first entry waits for others, in seconds: less than a request takes.
_LINGER_SECONDS = 0.005

_CLOSE_SECONDS = 2.0


@dataclass(eq=False)
class _Pending(Generic[Entry]):
    entry: Entry
    size: int
    done: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batcher(Generic[Entry]):
    """Collects entries and sends them by `call`, which gets up to ten of at most `max_bytes` together and returns the
    error of each, or None. Batches are sent side by side. A failed entry fails alone: if the call itself fails with
    one of the codes in `faults`, which an entry caused, each is sent alone, and the faulty one is unpublishable.
    """

    def __init__(
        self,
        call: Callable[[list[Entry]], Awaitable[list[Exception | None]]],
        faults: frozenset[str],
        max_bytes: int | None = None,
    ) -> None:
        self._call = call
        self._faults = faults
        self._max_bytes = max_bytes
        self._pending: list[_Pending[Entry]] = []
        self._sending: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def add(self, entry: Entry, size: int = 0) -> None:
        """Returns when the entry was taken. Raises its error, or that of the whole call."""
        if self._max_bytes is not None and sum(one.size for one in self._pending) + size > self._max_bytes:
            self._flush()
        pending = _Pending(entry, size)
        self._pending.append(pending)
        if len(self._pending) >= _MAX_ENTRIES:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._flush)
        await pending.done

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # An entry whose request was cancelled is not sent.
        batch, self._pending = [one for one in self._pending if not one.done.done()], []
        if batch:
            task = asyncio.create_task(self._send(batch))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def aclose(self) -> None:
        """Waits for the batches under way, for a moment, and gives up the rest: a client must not be used after it
        was closed.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for pending in self._pending:
            pending.done.cancel()
        self._pending = []
        if self._sending:
            await asyncio.wait(self._sending, timeout=_CLOSE_SECONDS)
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    async def _call_once(self, entries: list[Entry]) -> list[Exception | None]:
        try:
            return await self._call(entries)
        except Exception as error:
            if not isinstance(error, ClientError) or _find_code(error) not in self._faults:
                return [error] * len(entries)
            if len(entries) == 1:
                return [UnpublishableError(str(error))]
        return [error for one in entries for error in await self._call_once([one])]

    async def _send(self, batch: list[_Pending[Entry]]) -> None:
        errors = await self._call_once([one.entry for one in batch])
        for one, failed in zip(batch, errors, strict=True):
            if one.done.done():
                continue
            if failed is None:
                one.done.set_result(None)
            else:
                one.done.set_exception(failed)


def _find_code(error: ClientError) -> str:
    """Returns AWS's code of an error, without the name of the service."""
    return str(error.response["Error"].get("Code", "")).rpartition(".")[2]
