"""The frames of a streamed answer: server-sent events, or JSON lines."""

import asyncio
from collections.abc import AsyncIterator

from adapters.agents.http_verdicts import BadAnswerError, LargeAnswerError

_LINES_BETWEEN_TURNS = 200
_BOM = b"\xef\xbb\xbf"
_LINE_ENDS = (b"\n", b"\r")


async def sse_data(pieces: AsyncIterator[bytes], most: int, *, lenient: bool = False) -> AsyncIterator[str]:
    """The `data` of each event. One that is cut off before its blank line does not count, as the standard has it;
    unless `lenient`, and it is whole: some servers leave the line out after the end of an answer.

    `most`: bytes of a line. Raises BadAnswerError and LargeAnswerError.
    """
    data: list[str] = []
    size = 0
    async for line, ended in _lines(pieces, most):
        size += len(line)
        if size > most:
            raise LargeAnswerError(most)
        if not line and ended:
            if data:
                yield "\n".join(data)
            data, size = [], 0
            continue
        name, _, value = line.partition(":")
        if name == "data":
            # a line that is cut off may be half a value
            data = [*data, value.removeprefix(" ")] if ended or _is_whole(value) else []
    if data and lenient:
        yield "\n".join(data)


def _is_whole(value: str) -> bool:
    return value.strip() == "[DONE]" or value.rstrip().endswith("}")


async def json_lines(pieces: AsyncIterator[bytes], most: int) -> AsyncIterator[str]:
    """The lines that are not empty; the last need not be ended. Raises as `sse_data` does."""
    async for line, _ in _lines(pieces, most):
        if line.strip():
            yield line


async def _lines(pieces: AsyncIterator[bytes], most: int) -> AsyncIterator[tuple[str, bool]]:
    """Lines without their end, and whether they had one: LF, CR LF or CR."""
    held: list[bytes] = []
    size = 0
    first = True
    async for piece in pieces:
        if first and piece:
            piece, first = piece.removeprefix(_BOM), False
        size += len(piece)
        # a CR at the end of what was held may be half of an end
        open_end = bool(held) and held[-1].endswith(b"\r")
        held.append(piece)
        if open_end or any(end in piece for end in _LINE_ENDS):
            *whole, rest = _split(b"".join(held))
            held, size = [rest] if rest else [], len(rest)
            for number, line in enumerate(whole, 1):
                yield _text(line), True
                if not number % _LINES_BETWEEN_TURNS:  # others have their turn, however many lines came at once
                    await asyncio.sleep(0)
        if size > most:
            raise LargeAnswerError(most)
    if held:
        last = b"".join(held)
        ended = last.endswith(b"\r")
        yield _text(last.rstrip(b"\r")), ended


def _split(buffer: bytes) -> list[bytes]:
    """The lines that have ended, and then what is left."""
    lines = buffer.splitlines(keepends=True)
    rest = b"" if lines[-1].endswith(b"\n") else lines.pop()
    return [*(line.rstrip(b"\r\n") for line in lines), rest]


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise BadAnswerError("it is not UTF-8") from None
