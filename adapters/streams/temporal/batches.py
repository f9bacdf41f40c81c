"""How a batch stands in the history: a JSON array, one line per entry.

JSON has no raw line breaks within its strings, so a reader splits the lines without decoding them.
"""

import base64
from collections.abc import Sequence

from temporalio.api.common.v1 import Payload

from sevenfold.contracts.runs.streams import SEGMENT_MARKER, StreamEntry

_JSON = {"encoding": b"json/plain"}

_MARKER = f'{{"{SEGMENT_MARKER}":'.encode()


def encode_batch(entries: Sequence[StreamEntry]) -> bytes:
    """The array of the entries."""
    return b"[%b]" % b",\n".join(entry.data for entry in entries)


def pack_batch(data: bytes) -> str:
    """An array as `PublishEntry` takes it: a serialized payload in base64. The codec encrypts its signal."""
    return base64.b64encode(Payload(metadata=_JSON, data=data).SerializeToString()).decode()


def unpack_batch(data: str) -> list[bytes]:
    """The lines of a packed array: each is an entry or a marker."""
    return Payload.FromString(base64.b64decode(data)).data[1:-1].split(b",\n")


def is_marker(line: bytes) -> bool:
    """Whether the line is the marker before the next segment."""
    return line.startswith(_MARKER)
