"""Documents that mean harm: each ends as an error of its own, and whoever reads it goes on."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from contextlib import suppress
from pathlib import Path

import pytest

from sevenfold.adapters.documents.extraction import DocumentReader
from sevenfold.adapters.documents.limits import DocumentLimits
from sevenfold.contracts.agents.document_errors import DocumentFault
from tests.support.documents import ROOT, fault, pdf, read


def form(number: int, calls: int) -> bytes:
    """An object that draws another (or itself) many times over."""
    content = b"/X Do " * calls
    form = b"<< /Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X %d 0 R >> >> /Length %d >>"
    return form % (number, len(content)) + b"\nstream\n%s\nendstream" % content


def zeros(megabytes: int) -> bytes:
    """So many zeros, compressed to a thousandth of their size."""
    packer = zlib.compressobj()
    return b"".join(packer.compress(bytes(1_000_000)) for _ in range(megabytes)) + packer.flush()


FLATE = b"/Filter /FlateDecode"

# Half a minute of work for the reader of PDF.
SLOW_PDF = pdf(zlib.compress(b"BT /F1 9 Tf " + b"(a) Tj " * 990_000), stream=FLATE)


@pytest.mark.parametrize(
    ("expected", "data"),
    [
        # Pages of zeros; packed twice, 300 MB are a few kilobytes.
        ("too_large", lambda: pdf(zeros(300), stream=FLATE)),
        ("too_large", lambda: pdf(zlib.compress(zeros(300)), stream=b"/Filter [/FlateDecode /FlateDecode]")),
        ("too_large", lambda: pdf(b"", kids=b"4 0 R " * 1_000_000)),
        ("too_large", lambda: pdf(b"", kids=b"4 0 R " * 50_000)),
        ("broken", lambda: pdf(b"", kids=b"2 0 R")),
        ("empty", lambda: pdf(b"[" * 1_000_000)),
        # A form that draws itself, and forms of forms of forms: 50 to the power of 6.
        ("empty", lambda: pdf(b"/X Do", page=b"/XObject << /X 6 0 R >>", more=[form(6, 2)])),
        ("empty", lambda: pdf(b"/X Do", page=b"/XObject << /X 6 0 R >>", more=[form(n, 50) for n in range(7, 13)])),
    ],
)
async def test_pdf_bombs_are_refused(expected, data):
    # What is refused for its contents, not for the time that a busy machine takes.
    assert await fault(data(), limits=DocumentLimits(seconds=90)) == expected


async def test_html_bombs_are_refused():
    nested = await read(b"<div>" * 1_000_000 + b"deep", "text/html")
    assert nested.text == "deep"
    assert (await read(b"<html>" + b"<svg>" * 50_000 + b"</svg>" * 50_000 + b"out")).text == "out"


async def test_reading_time_is_limited():
    assert await fault(SLOW_PDF, limits=DocumentLimits(seconds=1)) is DocumentFault.TOO_SLOW


@pytest.mark.parametrize(
    "piece",
    ["</a ", "<a ", "<!--", "<!", "<?", "<![CDATA[", '<a x="', "<a '", "<", "&", "<div>", "<b><i>", "<table><td>"],
)
async def test_html_is_read_in_linear_time(piece):
    """2 MB of constructs without an end: parsers that look for the end of each take hours."""
    page = b"<html><p>first</p>" + (piece * (2_000_000 // len(piece))).encode()
    assert (await read(page, "text/html", DocumentLimits(seconds=10))).text.startswith("first")


async def test_slow_documents_do_not_delay_quick_ones():
    reader = DocumentReader(concurrency=1, slow_after_seconds=0.1)
    async with asyncio.TaskGroup() as slow:
        tasks = [slow.create_task(reader.extract(SLOW_PDF)) for _ in range(3)]
        quick = await reader.extract(b"<html>quick")
        assert quick.text == "quick"
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()


async def test_documents_of_one_tenant_do_not_hold_up_another():
    """Eight documents wait for one slot; another tenant's is read after the one that is being read."""
    reader = DocumentReader(concurrency=1)
    page = b"<html>" + b"<p>text" * 20_000
    ended = []

    async def extract(tenant: str) -> None:
        await reader.extract(page, tenant=tenant)
        ended.append(tenant)

    await asyncio.gather(*(extract("acme") for _ in range(8)), extract("globex"))
    assert ended.index("globex") <= 2


async def test_number_of_slow_documents_at_once_is_limited():
    reader = DocumentReader(DocumentLimits(seconds=3), concurrency=1, slow_after_seconds=0.05)
    most = 0
    tasks = [asyncio.create_task(reader.extract(SLOW_PDF)) for _ in range(8)]
    for _ in range(10):
        await asyncio.sleep(0.2)
        most = max(most, len(children()))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert 2 <= most <= 5
    assert not children()


async def test_memory_of_a_reader_is_limited():
    lines = b"\n" * 19_000_000 + b"a"
    assert await fault(lines, limits=DocumentLimits(memory_bytes=150_000_000)) is DocumentFault.TOO_LARGE
    assert (await read(lines)).text == "a"


def children() -> list[int]:
    """The processes that read documents for us."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"sevenfold.adapters.documents.child" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


async def reading_slowly(reader: DocumentReader) -> tuple[asyncio.Task, int]:
    work = asyncio.create_task(reader.extract(SLOW_PDF))
    while not children():
        await asyncio.sleep(0.01)
    return work, children()[0]


async def test_cancelled_reader_leaves_no_process():
    reader = DocumentReader(concurrency=1)
    for pause in (0, 0.5):  # while the bytes are sent, and later
        work, process = await reading_slowly(reader)
        await asyncio.sleep(pause)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert not Path(f"/proc/{process}").exists()
    assert (await reader.extract(b"<html>next")).text == "next"


async def test_killed_reader_process_is_no_fault_of_the_document():
    work, process = await reading_slowly(DocumentReader())
    os.kill(process, signal.SIGKILL)
    with pytest.raises(ChildProcessError):
        await work


async def test_time_limit_of_a_document_starts_with_its_slot():
    reader = DocumentReader(DocumentLimits(seconds=0.6), concurrency=1)
    started_at = time.monotonic()
    outcomes = await asyncio.gather(*(reader.extract(SLOW_PDF) for _ in range(3)), return_exceptions=True)
    assert [outcome.fault for outcome in outcomes] == [DocumentFault.TOO_SLOW] * 3
    assert 1.8 < time.monotonic() - started_at < 60


def test_orphaned_reader_process_exits():
    order = {"kind": "pdf", "charset": None, "limits": {"seconds": 1}}
    command = [sys.executable, "-m", "sevenfold.adapters.documents.child", json.dumps(order)]
    ended = subprocess.run(command, input=SLOW_PDF, cwd=ROOT, timeout=60, capture_output=True)
    assert ended.returncode == -signal.SIGXCPU
