"""Detects a document's kind: by its first bytes, then by its declared media type."""

import re
from enum import StrEnum
from pathlib import PurePath
from typing import NamedTuple

from sevenfold.contracts.agents.document_errors import DocumentError, DocumentFault


class DocumentKind(StrEnum):
    """The name of a parser module."""

    PDF = "pdf"
    HTML = "html"
    PLAIN = "plain"


class Sniffed(NamedTuple):
    """The parser, the media type without parameters, and the declared character set."""

    kind: DocumentKind
    media_type: str
    charset: str | None


# PDF parsers accept a header that starts within this many bytes; comments may precede a page's first element.
_PDF_WITHIN = 1_024
_HTML_WITHIN = 2_048
_HTML_START = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]{0,200}>\s*)?(?:<!--.{0,1000}?-->\s*)?"
    rb"<(?:!doctype\s+html|html|head|title|body)[\s>]",
    re.IGNORECASE | re.DOTALL,
)
_CHARSET = re.compile(r";\s*charset\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE)

# Unsupported formats, by their first bytes.
_FOREIGN = {
    b"PK\x03\x04": "a ZIP archive, as Word, Excel, PowerPoint, OpenDocument and EPUB files are",
    b"\xd0\xcf\x11\xe0": "an old Office file",
    b"{\\rtf": "an RTF file",
    b"%!PS": "a PostScript file",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"II*\x00": "a TIFF image",
    b"MM\x00*": "a TIFF image",
    b"\x1f\x8b": "a gzip archive",
}
# Media types of servers and clients that do not know the type.
_GENERIC = frozenset(
    {
        "",
        "application/octet-stream",
        "binary/octet-stream",
        "application/download",
        "application/x-download",
        "application/force-download",
    }
)
_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_PDF_TYPES = frozenset({"application/pdf", "application/x-pdf"})
_PLAIN_TYPES = re.compile(r"text/.+|application/(?:.+\+)?(?:json|xml|yaml)|application/(?:x-yaml|x-ndjson|jsonl)")
_HTML_SUFFIXES = frozenset({".html", ".htm", ".xhtml"})


def sniff(data: bytes, content_type: str | None, name: str | None) -> Sniffed:
    """Returns the kind of `data`. Raises DocumentError for an unsupported kind.

    Bytes take precedence over the declaration, because declarations are often wrong and a PDF always has its header.
    """
    declared = (content_type or "").partition(";")[0].strip().lower()
    charset = _CHARSET.search(content_type or "")
    if b"%PDF-" in data[:_PDF_WITHIN] and not _looks_like_html(data):
        return Sniffed(DocumentKind.PDF, "application/pdf", None)
    foreign = next((what for start, what in _FOREIGN.items() if data.startswith(start)), None)
    if foreign is not None:
        raise _unsupported(f"The document is {foreign}")
    if declared in _PDF_TYPES:
        raise DocumentError(
            DocumentFault.BROKEN,
            "The document is declared as a PDF but is not one: its URL may have returned an error page. "
            "Check what its URL returns, or which file was encoded.",
        )
    kind, media_type = _sniff_text(data, declared, name)
    return Sniffed(kind, media_type, charset[1] if charset else None)


def _sniff_text(data: bytes, declared: str, name: str | None) -> tuple[DocumentKind, str]:
    if declared in _HTML_TYPES:
        return DocumentKind.HTML, declared
    if declared in _GENERIC:
        html = _looks_like_html(data) or PurePath(name or "").suffix.lower() in _HTML_SUFFIXES
        return (DocumentKind.HTML, "text/html") if html else (DocumentKind.PLAIN, "text/plain")
    if _PLAIN_TYPES.fullmatch(declared):
        return DocumentKind.PLAIN, declared
    raise _unsupported(f"The document is declared as {declared[:100]}")


def _looks_like_html(data: bytes) -> bool:
    return _HTML_START.match(data[:_HTML_WITHIN]) is not None


def _unsupported(fact: str) -> DocumentError:
    return DocumentError(
        DocumentFault.UNSUPPORTED_TYPE, f"{fact}, which is not supported. Send a PDF, an HTML page or plain text."
    )
