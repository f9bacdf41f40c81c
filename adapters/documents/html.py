"""HTML: extracts the title and the visible text."""

import re
from collections.abc import Mapping

from lxml.etree import HTMLParser

from sevenfold.adapters.documents.limits import DocumentLimits, Extracted
from sevenfold.adapters.documents.plain import decode, tidy, to_title, truncate

# Elements without visible text. (`noscript` is for parsers like this one, so it is kept.)
_HIDDEN = frozenset({"script", "style", "template", "svg", "math", "iframe", "object", "canvas", "audio", "video"})
_BLOCKS = re.compile(
    r"address|article|aside|blockquote|body|caption|center|dd|details|dialog|div|dl|dt|fieldset|figcaption|figure|"
    r"footer|form|h1|h2|h3|h4|h5|h6|header|hr|legend|main|menu|nav|ol|option|p|pre|section|select|summary|table|"
    r"tbody|textarea|tfoot|thead|title|ul"
)
_LINES = frozenset({"br", "li", "tr"})
_CELLS = frozenset({"td", "th"})

_SPACES = re.compile(r"[ \t\n\r\f]+")
# Where a page declares its character set: early, and in ASCII whatever the encoding is.
_DECLARED_WITHIN = 2_048
_DECLARED = re.compile(
    rb"<(?:meta\s[^>]{0,300}?charset|\?xml\s[^>]{0,100}?encoding)\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE
)


def extract(data: bytes, charset: str | None, limits: DocumentLimits) -> Extracted:
    """Returns the visible text: a blank line around blocks, a hyphen before list items."""
    page = _Page(limits.characters)
    # libxml2 tokenizes in linear time for any input; with a target it builds no tree and has no depth limit.
    parser = HTMLParser(target=page, huge_tree=True)
    try:
        parser.feed(decode(data, charset or _declared(data)))
        parser.close()
    except _Enough:
        pass
    text = tidy("\n".join(" ".join(line.split()) for line in "".join(page.pieces).splitlines()))
    found = truncate(text, limits.characters)
    return found._replace(title=to_title("".join(page.title)), truncated=found.truncated or page.is_full)


def _declared(data: bytes) -> str | None:
    found = _DECLARED.search(data[:_DECLARED_WITHIN])
    charset = found[1].decode("ascii") if found else None
    # A declaration that is readable as ASCII cannot be in UTF-16.
    return None if charset and charset.lower().startswith("utf-16") else charset


def _is_block(tag: str) -> bool:
    return _BLOCKS.fullmatch(tag) is not None


class _Enough(Exception):  # noqa: N818  (no error)
    """The page has reached the limit of characters."""


class _Page:
    """Collects the text of a page, as the target of lxml's parser.

    Its memory does not grow with the depth of the page's elements.
    """

    def __init__(self, characters: int) -> None:
        self.pieces: list[str] = []
        self.title: list[str] = []
        self.is_full = False
        self._room = characters
        # The enclosing hidden element, and how many open elements have its name.
        self._hidden = ""
        self._depth = 0
        self._in_title = False
        self._preformatted = 0
        self._bullet = False
        # Whether a list item has just ended and nothing has followed.
        self._after_item = False

    def start(self, tag: str, _attributes: Mapping[str, str]) -> None:
        if self._hidden:
            self._depth += tag == self._hidden
        elif tag in _HIDDEN:
            self._hidden, self._depth = tag, 1
        else:
            self._preformatted += tag == "pre"
            self._in_title = tag == "title" and not self.title
            if tag == "li" and self._after_item:
                self._join_items()
            self._after_item = False
            self._bullet = tag == "li" or (self._bullet and _is_block(tag))
            self._break(tag)

    def end(self, tag: str) -> None:
        if self._hidden:
            self._depth -= tag == self._hidden
            self._hidden = self._hidden if self._depth else ""
            return
        if tag == "pre":
            self._preformatted = max(0, self._preformatted - 1)
        self._in_title = False
        self._bullet = self._bullet and tag != "li"
        self._after_item = self._after_item or tag == "li"
        if tag not in _LINES:  # The parser closes every element, including `<br>`; their start is the line break.
            self._break(tag)

    def data(self, data: str) -> None:
        if self._hidden:
            return
        text = data if self._preformatted else _SPACES.sub(" ", data)
        if self._in_title:
            self.title.append(text)
            return
        if not text.isspace():
            self._after_item = False
            if self._bullet:
                self.pieces.append("- ")
                self._bullet = False
        self.pieces.append(text)
        self._room -= len(text)
        if self._room < 0:
            self.is_full = True
            raise _Enough

    def _join_items(self) -> None:
        """Removes the blank line between two items of a list, although the first may end with a paragraph."""
        while self.pieces and self.pieces[-1].isspace():
            self.pieces.pop()

    def close(self) -> None:
        """Required by lxml."""

    def _break(self, tag: str) -> None:
        if _is_block(tag) and not self._bullet:
            self.pieces.append("\n\n")
        elif tag in _LINES:
            self.pieces.append("\n")
        elif tag in _CELLS:
            self.pieces.append(" ")
