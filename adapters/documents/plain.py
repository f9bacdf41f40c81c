"""Plain text: decodes the bytes and cleans the text."""

import codecs
import re

from sevenfold.adapters.documents.limits import DocumentLimits, Extracted
from sevenfold.contracts.agents.document_errors import DocumentError, DocumentFault

# The marks of UTF-32 come first: one of them starts with a mark of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Python has more codecs than character sets: some are slow, and some do not yield text.
_CHARACTER_SETS = re.compile(
    r"utf-(?:8|16|32)(?:-[lb]e)?|iso8859-\d+|cp\d+|koi8-[a-z]|gb\w+|big5\w*|shift_jis\w*|euc_\w+|iso2022_\w+|"
    r"mac-\w+|tis-620|hz|johab"
)
# These names mean their Windows supersets, as in browsers.
_CODEC_ALIASES = {"ascii": "cp1252", "iso8859-1": "cp1252"}

# Characters that text has rarely; form feeds and escape sequences are common.
_BINARY = re.compile(r"[\x00-\x07\x0e-\x1a\x1c-\x1f]")
_SAMPLE = 100_000

# Control characters, lone surrogates (not encodable) and bidirectional overrides.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufeff]")
_BLANK_LINES = re.compile(r"\n{3,}")
_MAX_TITLE = 300


def extract(data: bytes, charset: str | None, limits: DocumentLimits) -> Extracted:
    """Returns the cleaned text. Raises DocumentError for bytes that are not text."""
    text = decode(data, charset)
    sample = text[:_SAMPLE]
    if len(_BINARY.findall(sample)) > max(5, len(sample) // 100):
        raise DocumentError(
            DocumentFault.UNSUPPORTED_TYPE,
            "The document is binary data. Send a PDF, an HTML page or plain text; if it is text, declare its "
            "character set in the content type (text/plain; charset=utf-16le).",
        )
    return truncate(tidy(text), limits.characters)


def decode(data: bytes, charset: str | None) -> str:
    """Decodes by a byte order mark, the declared character set, UTF-8, and finally Windows-1252."""
    mark = next((codec for mark, codec in _MARKS.items() if data.startswith(mark)), None)
    for codec in (mark, _codec(charset), "utf-8"):
        if codec is not None:
            try:
                return data.decode(codec)
            except UnicodeError:
                continue
    return data.decode("cp1252", errors="replace")


def _codec(charset: str | None) -> str | None:
    try:
        name = codecs.lookup(charset).name if charset else ""
    except (LookupError, ValueError):
        return None
    name = _CODEC_ALIASES.get(name, name)
    return name if _CHARACTER_SETS.fullmatch(name) else None


def tidy(text: str) -> str:
    """Removes unprintable characters, trailing blanks and repeated blank lines."""
    lines = (line.rstrip() for line in _UNPRINTABLE.sub("", text).splitlines())
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()


def truncate(text: str, characters: int) -> Extracted:
    """Truncates the text to `characters`."""
    return Extracted(text[:characters], truncated=len(text) > characters)


def to_title(text: str) -> str | None:
    """Returns the text as a title on one line, at most 300 characters; None if it is blank."""
    return " ".join(tidy(text[: 4 * _MAX_TITLE]).split())[:_MAX_TITLE] or None
