"""Compares an answer that a page shows with the one that came: in shape, not in values."""

import json
import re
from typing import Any

from tests.support.markdown import Block
from tests.support.shell_pages import Ran

SHOWN = ("json", "http", "text")
_ELLIPSIS = "…"
# Members whose values are compared as well.
_EXACT = ("status", "type", "pattern", "total", "kind", "chosen", "done")


def expects_error(shown: list[Block]) -> set[int]:
    """The HTTP errors that the page shows."""
    statuses: set[int] = set()
    for block in shown:
        statuses |= {int(status) for status in re.findall(r"^HTTP/1\.1 ([45]\d\d)", block.text, re.MULTILINE)}
        if block.language == "json" and "/problems/" in block.text:
            statuses.add(json.loads(block.text)["status"])
    return statuses


def compare(ran: Ran, shown: Block) -> list[str]:
    """What differs, as sentences; none if nothing does."""
    match shown.language:
        case "json":
            return _against_any(json.loads(shown.text), _documents(ran.output), "the output")
        case "http":
            return _response(shown.text, ran.output)
        case _:
            return _lines(shown.text, ran.output)


def _documents(output: str) -> list[Any]:
    """Every JSON value that begins a line of the output, the last first."""
    decoder, found, position = json.JSONDecoder(), [], 0
    starts = [match.start() for match in re.finditer(r"^[\[{]|(?<=[}\n])\{", output, re.MULTILINE)]
    for start in starts:
        if start < position:
            continue
        try:
            value, position = decoder.raw_decode(output, start)
        except ValueError:
            continue
        found.append(value)
    return found[::-1]


def _against_any(shown: Any, documents: list[Any], where: str) -> list[str]:
    if not documents:
        return [f"{where} holds no JSON"]
    differences = [_differences(shown, document, "") for document in documents]
    return [] if [] in differences else differences[0]


def _differences(shown: Any, actual: Any, pointer: str) -> list[str]:
    if shown in (_ELLIPSIS, "..."):
        return []
    if _kind(shown) != _kind(actual):
        return [f"{pointer or '/'} is {_kind(actual)} ({actual!r}), and {shown!r} is shown"]
    if isinstance(shown, dict):
        return _of_members(shown, actual, pointer)
    if isinstance(shown, list):
        return _of_entries([one for one in shown if one != _ELLIPSIS], actual, pointer)
    if pointer.rpartition("/")[2] in _EXACT and shown != actual:
        return [f"{pointer} is {actual!r}, and {shown!r} is shown"]
    return []


def _of_members(shown: dict[str, Any], actual: dict[str, Any], pointer: str) -> list[str]:
    missing = [f"{pointer}/{key} is shown and missing" for key in shown if key != _ELLIPSIS and key not in actual]
    common = [key for key in shown if key in actual]
    return missing + [one for key in common for one in _differences(shown[key], actual[key], f"{pointer}/{key}")]


def _of_entries(shown: list[Any], actual: list[Any], pointer: str) -> list[str]:
    if len(actual) < len(shown):
        return [f"{pointer} has {len(actual)} entries, and {len(shown)} are shown"]
    pairs = zip(shown, actual, strict=False)
    return [one for n, (left, right) in enumerate(pairs) for one in _differences(left, right, f"{pointer}/{n}")]


def _kind(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(type(value).__name__)
    return "number" if isinstance(value, int | float) else str(type(value).__name__)


def _response(shown: str, output: str) -> list[str]:
    """A response with its status line, headers and perhaps a body."""
    head, _, body = shown.partition("\n\n")
    status, *headers = head.splitlines()
    responses = re.split(r"(?=HTTP/1\.1 \d{3})", output.replace("\r\n", "\n"))  # a body may end without a newline
    actual = responses[-1]
    found = [] if actual.startswith(status) else [f"{status!r} is shown; it is {actual[:40]!r}"]
    actual_head, _, actual_body = actual.partition("\n\n")
    names = {line.partition(":")[0].lower() for line in actual_head.splitlines()[1:]}
    found += [
        f"the header {line!r} is shown and missing" for line in headers if line.partition(":")[0].lower() not in names
    ]
    if body.strip():
        found += _against_any(json.loads(body), _documents(actual_body), "the body")
    return found


def _lines(shown: str, output: str) -> list[str]:
    """Lines of a stream or of a command's output: each has its like in what came, in any place."""
    lines = [line.strip() for line in output.splitlines()]
    return [
        f"the line {one!r} is shown, and none is like it"
        for one in (line.strip() for line in shown.splitlines())
        if one and one != _ELLIPSIS and not any(_is_like(one, line) for line in lines)
    ]


def _is_like(shown: str, line: str) -> bool:
    field, braces, rest = shown.partition("{")
    if braces and rest.endswith("}"):
        try:
            return line.startswith(field) and not _differences(
                json.loads(braces + rest), json.loads(line[len(field) :]), ""
            )
        except ValueError:
            return False
    return _general(line).startswith(_general(shown.rstrip(_ELLIPSIS)))


def _general(line: str) -> str:
    line = re.sub(r"\b(qry|job|evt|task|str|hyb|whk|rea|rej|req)_[a-z0-9]+", "ID", line)
    return re.sub(r"\d+(\.\d+)?", "0", line)
