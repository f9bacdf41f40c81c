"""Extracts text from documents, each in a limited child process that cannot harm this one."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from sevenfold.adapters.documents import plain
from sevenfold.adapters.documents.limits import DocumentLimits, Extracted, damaged_error
from sevenfold.adapters.documents.sniffing import DocumentKind, Sniffed, sniff
from sevenfold.adapters.fairness import FairSlots
from sevenfold.contracts.agents.document_errors import DocumentError, DocumentFault
from sevenfold.contracts.agents.documents import DocumentText
from sevenfold.contracts.identity import DEFAULT_TENANT

DEFAULT_LIMITS = DocumentLimits()

# Decoding this much takes a millisecond; starting a process takes 40.
_NO_PROCESS_UP_TO = 64_000

_SLOW_PER_SLOT = 4
_LOWEST_PRIORITY = 19

# Exit codes that the document did not cause: an operator killed the process, or the machine ran out of memory.
_KILLED = frozenset({-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP})


class DocumentReader:
    """Reads PDF, HTML and plain text, `concurrency` documents at a time (default: the number of processors).

    Further documents wait, and their time limit starts later; tenants take turns. A document that takes longer than
    `slow_after_seconds` gives its slot to the next one and continues at the lowest priority, so that slow documents
    do not delay quick ones. At most four times `concurrency` documents are slow at a time; beyond that a slow one
    keeps its slot.
    """

    def __init__(
        self, limits: DocumentLimits = DEFAULT_LIMITS, concurrency: int | None = None, slow_after_seconds: float = 2.0
    ) -> None:
        concurrency = concurrency or os.cpu_count() or 1
        self._limits = limits
        self._slow_after_seconds = slow_after_seconds
        self._slots = FairSlots(concurrency)
        self._slow_slots = asyncio.Semaphore(_SLOW_PER_SLOT * concurrency)

    async def extract(
        self,
        data: bytes,
        *,
        content_type: str | None = None,
        name: str | None = None,
        title: str | None = None,
        tenant: str = DEFAULT_TENANT,
    ) -> DocumentText:
        """Returns the text of a tenant's file, by its bytes, declared media type and file name; a given title takes
        precedence.

        Raises DocumentError for a document that cannot be read, OSError for a transient failure. A cancellation
        leaves no process behind.
        """
        self._check_size(data)
        sniffed = sniff(data, content_type, name)
        if sniffed.kind is DocumentKind.PLAIN and len(data) <= _NO_PROCESS_UP_TO:
            found = plain.extract(data, sniffed.charset, self._limits)
        else:
            found = _parse_answer(*await self._extract_in_process(data, sniffed, tenant))
        if not found.text:
            raise _without_text(sniffed.kind)
        return DocumentText(
            text=found.text,
            content_type=sniffed.media_type,
            title=title or found.title,
            pages=found.pages,
            unread_pages=found.unread_pages,
            truncated=found.truncated,
        )

    def _check_size(self, data: bytes) -> None:
        if not data:
            raise DocumentError(
                DocumentFault.EMPTY,
                "The document is an empty file. Check what its URL returns, or send its text.",
            )
        if len(data) > self._limits.input_bytes:
            raise DocumentError(
                DocumentFault.TOO_LARGE,
                f"The document is larger than {self._limits.input_bytes / 1_000_000:g} MB. Send its text, or the "
                "document in parts.",
            )

    async def _extract_in_process(self, data: bytes, sniffed: Sniffed, tenant: str) -> tuple[int, bytes]:
        """Returns the exit code and the output."""
        await self._slots.acquire(tenant)
        held_slot: FairSlots | asyncio.Semaphore = self._slots
        try:
            async with self._process(sniffed) as process:
                reading = asyncio.create_task(process.communicate(data))
                try:
                    async with asyncio.timeout(self._limits.seconds):
                        await asyncio.wait({reading}, timeout=self._slow_after_seconds)
                        if not reading.done() and not self._slow_slots.locked():
                            await self._slow_slots.acquire()
                            held_slot.release()
                            held_slot = self._slow_slots
                            _slow_down(process)
                        answer, _ = await reading
                except TimeoutError:
                    raise _too_slow() from None
                finally:
                    reading.cancel()
                    await asyncio.wait({reading})
        finally:
            held_slot.release()
        assert process.returncode is not None  # noqa: S101  (communicate waits for the end)
        return process.returncode, answer

    @asynccontextmanager
    async def _process(self, sniffed: Sniffed) -> AsyncIterator[asyncio.subprocess.Process]:
        """The child process, which has ended when the block exits."""
        order = {"kind": sniffed.kind, "charset": sniffed.charset, "limits": asdict(self._limits)}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-B", "-X", "utf8", "-W", "ignore", "-m", "sevenfold.adapters.documents.child"),
            json.dumps(order),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_environment(),
            # Ctrl-C in a terminal signals the whole process group; we end our children ourselves.
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                # wait() alone may never return while there is unread output.
                await process.communicate()


def _slow_down(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):  # It has just ended.
        os.setpriority(os.PRIO_PROCESS, process.pid, _LOWEST_PRIORITY)


def _environment() -> dict[str, str]:
    """Only what it takes to import the same modules: no secrets for a process that reads untrusted input."""
    paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
    libraries = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"PYTHONPATH": paths, **libraries}


def _parse_answer(code: int, answer: bytes) -> Extracted:
    if code == -signal.SIGXCPU:
        raise _too_slow()
    if code in _KILLED or code > 0:
        raise ChildProcessError(f"a document's process ended with code {code}")
    if code < 0:  # The document crashed its process, and would do so again.
        raise damaged_error()
    fields = json.loads(answer)
    if "fault" in fields:
        raise DocumentError(DocumentFault(fields["fault"]), fields["detail"])
    return Extracted(**fields)


def _too_slow() -> DocumentError:
    return DocumentError(
        DocumentFault.TOO_SLOW, "The document takes too long to read. Send its text, or the document in parts."
    )


def _without_text(kind: DocumentKind) -> DocumentError:
    detail = (
        "The PDF has no text: its pages may be scanned images. Send it after text recognition (OCR)."
        if kind is DocumentKind.PDF
        else "The document has no text: scripts or images may render it. Send the text itself."
    )
    return DocumentError(DocumentFault.EMPTY, detail)
