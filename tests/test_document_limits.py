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

from adapters.documents.extraction import DocumentReader
from adapters.documents.limits import Limits
from contracts.document_errors import DocumentFault
from tests.documents import ROOT, fault, pdf, read

# Half a minute of work for the parser of HTML.
SLOW_PAGE = b"<html>" + b"</a " * 3_000_000


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
async def test_bombs_of_pdf(expected, data):
    assert await fault(data()) == expected


async def test_bombs_of_html():
    nested = await read(b"<div>" * 1_000_000 + b"deep", "text/html")
    assert nested.text == "deep"
    assert (await read(b"<html>" + b"<svg>" * 50_000 + b"</svg>" * 50_000 + b"out")).text == "out"


async def test_time_is_limited():
    million_words = pdf(zlib.compress(b"BT /F1 9 Tf " + b"(a) Tj " * 990_000), stream=FLATE)
    for endless in (SLOW_PAGE, million_words):
        assert await fault(endless, limits=Limits(seconds=1)) is DocumentFault.TOO_SLOW


async def test_memory_is_limited():
    lines = b"\n" * 19_000_000 + b"a"
    assert await fault(lines, limits=Limits(memory_bytes=150_000_000)) is DocumentFault.TOO_LARGE
    assert (await read(lines)).text == "a"


def children() -> list[int]:
    """The processes that read documents for us."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"adapters.documents.child" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


async def reading_slowly(reader: DocumentReader) -> tuple[asyncio.Task, int]:
    work = asyncio.create_task(reader.extract(SLOW_PAGE))
    while not children():
        await asyncio.sleep(0.01)
    return work, children()[0]


async def test_a_cancellation_leaves_no_process_behind():
    reader = DocumentReader(at_once=1)
    for pause in (0, 0.5):  # while the bytes are sent, and later
        work, process = await reading_slowly(reader)
        await asyncio.sleep(pause)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert not Path(f"/proc/{process}").exists()
    assert (await reader.extract(b"<html>next")).text == "next"


async def test_a_process_that_somebody_kills_says_nothing_of_the_document():
    work, process = await reading_slowly(DocumentReader())
    os.kill(process, signal.SIGKILL)
    with pytest.raises(ChildProcessError):
        await work


async def test_documents_wait_for_a_place_and_their_time_waits_too():
    reader = DocumentReader(Limits(seconds=0.6), at_once=1)
    begun = time.monotonic()
    outcomes = await asyncio.gather(*(reader.extract(SLOW_PAGE) for _ in range(3)), return_exceptions=True)
    assert [outcome.fault for outcome in outcomes] == [DocumentFault.TOO_SLOW] * 3
    assert 1.8 < time.monotonic() - begun < 60


def test_a_process_whose_gateway_is_gone_ends_by_itself():
    order = {"kind": "html", "charset": None, "limits": {"seconds": 1}}
    command = [sys.executable, "-m", "adapters.documents.child", json.dumps(order)]
    ended = subprocess.run(command, input=SLOW_PAGE, cwd=ROOT, timeout=60, capture_output=True)
    assert ended.returncode == -signal.SIGXCPU
