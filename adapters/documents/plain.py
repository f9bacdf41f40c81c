"""Plain text: which characters its bytes are, and what of them is worth keeping."""

import codecs
import re

from sevenfold.adapters.documents.limits import Extracted, Limits
from sevenfold.contracts.document_errors import DocumentError, DocumentFault

# The marks of UTF-32 first: one of them begins with a mark of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Python has more codecs than there are character sets: some of them are slow, and some do not yield text.
_CHARACTER_SETS = re.compile(
    r"utf-(?:8|16|32)(?:-[lb]e)?|iso8859-\d+|cp\d+|koi8-[a-z]|gb\w+|big5\w*|shift_jis\w*|euc_\w+|iso2022_\w+|"
    r"mac-\w+|tis-620|hz|johab"
)
# Whoever says one of these means the larger set that Windows made of it; so do browsers.
_CODEC_ALIASES = {"ascii": "cp1252", "iso8859-1": "cp1252"}

# Characters of which a text holds but a few, if any; a form feed and an escape sequence are common.
_BINARY = re.compile(r"[\x00-\x07\x0e-\x1a\x1c-\x1f]")
_SAMPLE = 100_000

# Control characters, lone surrogates (no encoder takes them) and marks that reverse the reading direction.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufeff]")
_BLANK_LINES = re.compile(r"\n{3,}")
_MAX_TITLE = 300


def extract(data: bytes, charset: str | None, limits: Limits) -> Extracted:
    """The text as it is. Raises DocumentError for bytes that are no text."""
    text = decode(data, charset)
    sample = text[:_SAMPLE]
    if len(_BINARY.findall(sample)) > max(5, len(sample) // 100):
        raise DocumentError(
            DocumentFault.UNSUPPORTED_TYPE,
            "The document holds binary data. Send a PDF, an HTML page or plain text; if it is text, name its "
            "character set in the content type (text/plain; charset=utf-16le).",
        )
    return truncate(tidy(text), limits.characters)


def decode(data: bytes, charset: str | None) -> str:
    """The characters: by a byte order mark, the declared character set, as UTF-8, else as Windows-1252."""
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
    """The text without what cannot be printed, blanks at the ends of lines, and more than one blank line."""
    lines = (line.rstrip() for line in _UNPRINTABLE.sub("", text).splitlines())
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()


def truncate(text: str, characters: int) -> Extracted:
    """The text, cut to so many characters."""
    return Extracted(text[:characters], truncated=len(text) > characters)


def to_title(text: str) -> str | None:
    """The text as a title: on one line, of a sensible length."""
    return " ".join(tidy(text[: 4 * _MAX_TITLE]).split())[:_MAX_TITLE] or None
