"""How a batch stands in the history: a JSON array, one line per entry.

JSON has no raw line breaks within its strings, so a reader splits the lines without decoding them.
"""

from collections.abc import Sequence

from sevenfold.contracts.streams import SEGMENT_MARKER, StreamEntry

_MARKER = f'{{"{SEGMENT_MARKER}":'.encode()


def encode_batch(entries: Sequence[StreamEntry]) -> bytes:
    """The array of the entries."""
    return b"[%b]" % b",\n".join(entry.data for entry in entries)


def split_batch(data: bytes) -> list[bytes]:
    """The lines of an array: each is an entry or a marker."""
    return data[1:-1].split(b",\n")


def is_marker(line: bytes) -> bool:
    """Whether the line is the marker before the next segment."""
    return line.startswith(_MARKER)
