"""Frames of a streamed answer: server-sent events or JSON lines."""

import asyncio
from collections.abc import AsyncIterator

from sevenfold.adapters.agents.remote.error_mapping import BadAnswerError, LargeAnswerError

_LINES_BETWEEN_TURNS = 200
_BOM = b"\xef\xbb\xbf"
_LINE_ENDS = (b"\n", b"\r")


async def parse_sse(pieces: AsyncIterator[bytes], max_bytes: int, *, lenient: bool = False) -> AsyncIterator[str]:
    """Yields the `data` of each event. An event without its final blank line is dropped, as the standard requires,
    unless `lenient` and complete: some servers omit the line after the last event.

    `max_bytes` limits a line. Raises BadAnswerError and LargeAnswerError.
    """
    data: list[str] = []
    size = 0
    async for line, ended in _read_lines(pieces, max_bytes):
        size += len(line)
        if size > max_bytes:
            raise LargeAnswerError(max_bytes)
        if not line and ended:
            if data:
                yield "\n".join(data)
            data, size = [], 0
            continue
        name, _, value = line.partition(":")
        if name == "data":
            # A truncated line may be half a value.
            data = [*data, value.removeprefix(" ")] if ended or _is_complete(value) else []
    if data and lenient:
        yield "\n".join(data)


def _is_complete(value: str) -> bool:
    return value.strip() == "[DONE]" or value.rstrip().endswith("}")


async def parse_json_lines(pieces: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[str]:
    """Yields the non-empty lines; the last needs no line end. Raises as `parse_sse` does."""
    async for line, _ in _read_lines(pieces, max_bytes):
        if line.strip():
            yield line


async def _read_lines(pieces: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[tuple[str, bool]]:
    """Yields lines without their end (LF, CR LF or CR), and whether they had one."""
    buffered: list[bytes] = []
    size = 0
    first = True
    async for piece in pieces:
        if first and piece:
            piece, first = piece.removeprefix(_BOM), False
        size += len(piece)
        # A CR at the end of the buffer may be the first half of CR LF.
        open_end = bool(buffered) and buffered[-1].endswith(b"\r")
        buffered.append(piece)
        if open_end or any(end in piece for end in _LINE_ENDS):
            *whole, rest = _split_lines(b"".join(buffered))
            buffered, size = [rest] if rest else [], len(rest)
            for number, line in enumerate(whole, 1):
                yield _decode_line(line), True
                if not number % _LINES_BETWEEN_TURNS:  # Yields to the event loop, however many lines arrived at once.
                    await asyncio.sleep(0)
        if size > max_bytes:
            raise LargeAnswerError(max_bytes)
    if buffered:
        last = b"".join(buffered)
        ended = last.endswith(b"\r")
        yield _decode_line(last.rstrip(b"\r")), ended


def _split_lines(buffer: bytes) -> list[bytes]:
    """Returns the complete lines, and then the rest."""
    lines = buffer.splitlines(keepends=True)
    rest = b"" if lines[-1].endswith(b"\n") else lines.pop()
    return [*(line.rstrip(b"\r\n") for line in lines), rest]


def _decode_line(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise BadAnswerError("it is not UTF-8") from None
