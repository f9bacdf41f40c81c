"""A run's stream: what its agent says while it works, in order, and the log that keeps it.

Chunks are numbered from 1; the number is the cursor with which a reader resumes. Readers may be shown an entry before
the log has it, but never more than `MAX_UNCONFIRMED` ahead of it. What a crash took with it can so have had numbers
up to that many above the log's last. A further attempt therefore begins `RESET_STEP` above the log's end: no number
ever stands for two different chunks, and a reader who saw lost ones resumes before the reset like everybody else.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from sevenfold.contracts.payload import Payload

MAX_UNCONFIRMED = 500
RESET_STEP = 1_000

# Where the indexes of a redriven run's next life begin: above all of the life before.
GENERATION_STEP = 1_000_000


class EntryKind(StrEnum):
    """What an entry tells."""

    CHUNK = "chunk"
    RESET = "reset"
    PROGRESS = "progress"


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One thing told. `text` is the JSON that readers get and logs keep, made once for all of them.

    A chunk and a reset have an index of their own; a progress has that of the entry before it.
    """

    index: int
    kind: EntryKind
    text: str

    @classmethod
    def chunk(cls, index: int, text: str) -> "StreamEntry":
        """A piece of the response."""
        return cls(index, EntryKind.CHUNK, _json({"chunk": text, "index": index}))

    @classmethod
    def reset(cls, index: int, attempt: int) -> "StreamEntry":
        """The agent begins anew: what was said before is void."""
        return cls(index, EntryKind.RESET, _json({"reset": True, "attempt": attempt, "index": index}))

    @classmethod
    def progress(cls, index: int, percent: float, note: str) -> "StreamEntry":
        """How far the agent is, in whole percent."""
        body = {"progress": math.floor(percent), "note": note, "index": index}
        return cls(index, EntryKind.PROGRESS, _json(body))

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> "StreamEntry":
        """An entry as a log kept it."""
        return cls(body["index"], next(kind for kind in EntryKind if kind in body), _json(body))

    @classmethod
    def parse(cls, text: str) -> "StreamEntry":
        """An entry from the text that this class made: its first key names the kind, its last value is the index.

        Nothing is decoded, so a reader of a log hands on the text as it was written.
        """
        kind = EntryKind(text[2 : text.index('"', 2)])
        return cls(int(text[text.rindex(":") + 1 : -1]), kind, text)

    @property
    def size(self) -> int:
        """Roughly its bytes in memory and on the wire."""
        return len(self.text)


def _json(body: dict[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


# As Temporal's Workflow Streams name the signal that publishes; our topic in them; and ours that ends a segment.
PUBLISH_SIGNAL = "__temporal_workflow_stream_publish"
STREAM_TOPIC = "stream"
FINISH_SIGNAL = "finish"

# The only key of an entry that holds the number of the next segment.
SEGMENT_MARKER = "nextSegment"

# The signal that asks a run to publish its stream; and the memo that records it for the worker that calls the agent,
# when another worker handled the signal.
FOLLOW_SIGNAL = "follow"
FOLLOWED_MEMO = "followed"


class StreamSegmentInput(Payload):
    """The one object that `StreamSegment` takes. `expires_at`: it ends by itself then, whatever becomes of its
    writer.
    """

    expires_at: datetime


def segment_workflow_id(workflow_id: str, number: int) -> str:
    """The workflow id of a stream's segment: the first is the run itself."""
    return workflow_id if number == 1 else f"{workflow_id}/stream/{number}"


class StreamLogError(Exception):
    """The log cannot be reached at the moment."""


class StreamClosedError(Exception):
    """The run has ended, or a later attempt writes its stream: this writer is out of its time."""


@dataclass(frozen=True, slots=True)
class StreamPage:
    """Entries in order; `position` is where to read on. Not `has_more`: there is nothing further at the moment."""

    entries: list[StreamEntry]
    position: Any
    has_more: bool


class StreamWriter(Protocol):
    """One attempt's way into the log."""

    async def append(self, entries: Sequence[StreamEntry]) -> None:
        """Returns when they are kept. Asked again after a StreamLogError, it keeps them once.

        Raises StreamLogError, StreamClosedError.
        """
        ...

    async def finish(self) -> None:
        """Called after the last word of a run that has its answer: what is open for it alone may end."""
        ...


class StreamLog(Protocol):
    """Where streams are kept, behind the memory of the process that runs the agent."""

    def writer(self, workflow_id: str, deadline: datetime, *, is_retry: bool) -> StreamWriter:
        """A writer for one attempt of the run, which ends by the deadline. `is_retry`: others have written before."""
        ...

    def write_interval(self, *, has_local_readers: bool, age_seconds: float, writer_count: int) -> float:
        """Seconds between two writes of a stream: fewer cost less, more of them serve readers elsewhere sooner.

        `has_local_readers` tells whether this process has readers itself, `age_seconds` the seconds since the stream
        began, `writer_count` how many streams the process writes.
        """
        ...

    async def read(self, workflow_id: str, position: Any, *, wait: bool) -> StreamPage:
        """Entries after `position` (None: from the start), oldest first; with `wait` it may wait for the next.

        Raises StreamLogError.
        """
        ...

    async def last_index(self, workflow_id: str) -> int:
        """The index of the last chunk or reset that is kept, 0 if there is none. Raises StreamLogError."""
        ...
