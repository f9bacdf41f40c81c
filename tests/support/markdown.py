"""Reads the project's Markdown: fenced blocks, links and anchors."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>[^`]*)$")
_DIRECTIVE = re.compile(r"^<!-- docs-test: (?P<text>.+?) -->$")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$")
_LINK = re.compile(r"(?<!!)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)(?: \"[^\"]*\")?\)")
_CODE_SPAN = re.compile(r"(`+)(.+?)\1")


@dataclass(frozen=True)
class Block:
    """A fenced block. `directive` is the text of a `<!-- docs-test: … -->` comment on the line before it."""

    line: int
    language: str
    text: str
    directive: str | None = None


@dataclass(frozen=True)
class Page:
    """A Markdown file; `text` is its content where it is not the file's."""

    path: Path
    text: str | None = None

    @cached_property
    def lines(self) -> list[str]:
        text = self.path.read_text(encoding="utf-8") if self.text is None else self.text
        return text.splitlines()

    @cached_property
    def blocks(self) -> list[Block]:
        """All fenced blocks in order."""
        found: list[Block] = []
        is_open: tuple[int, str, str, str] | None = None
        body: list[str] = []
        for number, line in enumerate(self.lines, start=1):
            fence = _FENCE.match(line)
            if is_open is None and fence:
                is_open = (number, fence["fence"], fence["info"].strip(), fence["indent"])
                body = []
            elif is_open is not None and fence and fence["fence"] == is_open[1] and not fence["info"].strip():
                start, _, language, indent = is_open
                text = "\n".join(part.removeprefix(indent) for part in body)
                found.append(Block(start, language, text, self._directive(start)))
                is_open = None
            elif is_open is not None:
                body.append(line)
        assert is_open is None, f"{self.path.name}:{is_open and is_open[0]}: the block has no end"
        return found

    def _directive(self, fence_line: int) -> str | None:
        before = self.lines[fence_line - 2].strip() if fence_line > 1 else ""
        found = _DIRECTIVE.match(before)
        return found["text"] if found else None

    @cached_property
    def prose(self) -> list[tuple[int, str]]:
        """Numbered lines outside of fenced blocks."""
        inside, kept = "", []
        for number, line in enumerate(self.lines, start=1):
            fence = _FENCE.match(line)
            if fence and not inside:
                inside = fence["fence"]
            elif fence and fence["fence"] == inside:
                inside = ""
            elif not inside:
                kept.append((number, line))
        return kept

    @cached_property
    def anchors(self) -> set[str]:
        """The fragments that GitHub gives to the headings."""
        seen: dict[str, int] = {}
        anchors: set[str] = set()
        for _, line in self.prose:
            if heading := _HEADING.match(line):
                slug = _slug(heading[1])
                count = seen.get(slug, 0)
                seen[slug] = count + 1
                anchors.add(f"{slug}-{count}" if count else slug)
        return anchors

    @cached_property
    def links(self) -> list[tuple[int, str]]:
        """Line and target of every link in the prose."""
        return [
            (number, target) for number, line in self.prose for target in _LINK.findall(_CODE_SPAN.sub("code", line))
        ]


def _slug(heading: str) -> str:
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
