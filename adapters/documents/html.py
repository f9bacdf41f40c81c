"""HTML: the title and the text that a reader of the page sees."""

import re
from collections.abc import Mapping

from lxml.etree import HTMLParser

from sevenfold.adapters.documents.limits import Extracted, Limits
from sevenfold.adapters.documents.plain import decode, tidy, to_title, truncate

# Elements whose content is not shown, or is no text. (`noscript` is for readers like this one, and stays.)
_HIDDEN = frozenset({"script", "style", "template", "svg", "math", "iframe", "object", "canvas", "audio", "video"})
_BLOCKS = re.compile(
    r"address|article|aside|blockquote|body|caption|center|dd|details|dialog|div|dl|dt|fieldset|figcaption|figure|"
    r"footer|form|h1|h2|h3|h4|h5|h6|header|hr|legend|main|menu|nav|ol|option|p|pre|section|select|summary|table|"
    r"tbody|textarea|tfoot|thead|title|ul"
)
_LINES = frozenset({"br", "li", "tr"})
_CELLS = frozenset({"td", "th"})

_SPACES = re.compile(r"[ \t\n\r\f]+")
# Where a page names its character set: it must be early, and the words there are ASCII whatever the rest is.
_DECLARED_WITHIN = 2_048
_DECLARED = re.compile(
    rb"<(?:meta\s[^>]{0,300}?charset|\?xml\s[^>]{0,100}?encoding)\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE
)


def extract(data: bytes, charset: str | None, limits: Limits) -> Extracted:
    """The visible text: a blank line around blocks, a hyphen before list items."""
    page = _Page(limits.characters)
    # libxml2 tokenizes in linear time whatever the page holds; with a target it builds no tree, and knows no depth.
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
    # A page that could be read so far is not UTF-16, whatever it says.
    return None if charset and charset.lower().startswith("utf-16") else charset


def _is_block(tag: str) -> bool:
    return _BLOCKS.fullmatch(tag) is not None


class _Enough(Exception):  # noqa: N818  (no error)
    """The page has said as much as is kept of one."""


class _Page:
    """Collects the pieces of a page's text, as the target of lxml's parser.

    What it remembers does not grow with the depth of the page's elements.
    """

    def __init__(self, characters: int) -> None:
        self.pieces: list[str] = []
        self.title: list[str] = []
        self.is_full = False
        self._room = characters
        # The hidden element we are in, and how many of its own name stand open.
        self._hidden = ""
        self._depth = 0
        self._in_title = False
        self._preformatted = 0
        self._bullet = False
        # Whether a list item has just ended, with nothing after it yet.
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
        if tag not in _LINES:  # the parser gives every element an end, also `<br>`: their beginning is the break
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
        """No blank line between two items of a list, though the first may end with a paragraph."""
        while self.pieces and self.pieces[-1].isspace():
            self.pieces.pop()

    def close(self) -> None:
        """lxml asks for it."""

    def _break(self, tag: str) -> None:
        if _is_block(tag) and not self._bullet:
            self.pieces.append("\n\n")
        elif tag in _LINES:
            self.pieces.append("\n")
        elif tag in _CELLS:
            self.pieces.append(" ")
