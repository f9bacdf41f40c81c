"""Documents for tests, and readers of them."""

from io import BytesIO
from pathlib import Path

import pytest
from pypdf import PdfReader, PdfWriter

from sevenfold.adapters.documents.extraction import DocumentReader
from sevenfold.adapters.documents.limits import DocumentLimits
from sevenfold.contracts.agents.document_errors import DocumentError, DocumentFault
from sevenfold.contracts.agents.documents import DocumentText

ROOT = Path(__file__).parents[2]


def drawing(*lines: str) -> bytes:
    """A page's content that draws lines of text."""
    return b"BT /F1 12 Tf 72 720 Td 14 TL %s ET" % b" ".join(b"(%s) Tj T*" % line.encode() for line in lines)


def pdf(*contents: bytes, kids: bytes | None = None, stream: bytes = b"", page: bytes = b"", more=()) -> bytes:
    """A PDF of pages with these contents; `stream` and `page` go into their dictionaries, `more` are objects."""
    numbers = range(4, 4 + 2 * len(contents), 2)
    kids = b" ".join(b"%d 0 R" % number for number in numbers) if kids is None else kids
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(contents)),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, content in zip(numbers, contents, strict=True):
        resources = b"/Resources << /Font << /F1 3 0 R >> %s >> /Contents %d 0 R" % (page, number + 1)
        objects.append(b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] %s >>" % resources)
        objects.append(b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(content), stream, content))
    file = b"%PDF-1.7\n"
    places = []
    for number, written in enumerate([*objects, *more], start=1):
        places.append(b"%010d 00000 n \n" % len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, written)
    table = b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(places) + 1, b"".join(places))
    trailer = b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(places) + 1, len(file))
    return file + table + trailer


def sealed(password: str, owner: str | None = None, title: str = "Sealed", algorithm: str = "AES-256") -> bytes:
    writer = PdfWriter(clone_from=PdfReader(BytesIO(pdf(drawing("Nobody shall see this.")))))
    writer.add_metadata({"/Title": title})
    writer.encrypt(password, owner, algorithm=algorithm)
    written = BytesIO()
    writer.write(written)
    return written.getvalue()


async def read(
    data: bytes, content_type: str | None = None, limits: DocumentLimits | None = None, **fields
) -> DocumentText:
    return await DocumentReader(limits or DocumentLimits()).extract(data, content_type=content_type, **fields)


async def fault(
    data: bytes, content_type: str | None = None, limits: DocumentLimits | None = None, **fields
) -> DocumentFault:
    with pytest.raises(DocumentError) as raised:
        await read(data, content_type, limits, **fields)
    detail = raised.value.detail
    assert detail.endswith(".")
    assert detail.count(". ") or detail.count(": ")  # what is wrong, and what to do
    assert not any(word in detail for word in ("Traceback", "pypdf", "Error", str(ROOT)))
    return raised.value.fault
