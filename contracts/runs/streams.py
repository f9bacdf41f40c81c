"""A run's stream: what its agent writes while it works, in order, and the log that keeps it.

Coordinates. Each has one name, used everywhere:

- *index* (`Index`): the number of a chunk or reset within its run, from 1. It is public: readers get it as the `id`
  of an event and resume after it. Every process and both logs use the same one.
- *position* (`LogPosition`): where to continue reading in a log. Opaque outside the log that issued it.
- *offset* (`Offset`): how many entries a replay buffer has ever taken. Private to one buffer in one process; progress
  entries have one too.

Readers may see an entry before the log has it, but never more than `MAX_UNCONFIRMED` entries ahead of it. A crash can
therefore lose up to that many indexes above the log's last. A further attempt begins `RESET_STEP` above the log's
end: no index ever stands for two different chunks, and a reader who saw lost chunks resumes before the reset.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

from sevenfold.contracts.payload import Payload

Index: TypeAlias = int
Offset: TypeAlias = int
LogPosition: TypeAlias = Any

MAX_UNCONFIRMED = 500
RESET_STEP = 1_000

# Where the indexes of a next generation of a redriven run begin: above all of the life before.
GENERATION_STEP = 1_000_000


class EntryKind(StrEnum):
    """The kind of an entry: the first key of its JSON."""

    CHUNK = "chunk"
    RESET = "reset"
    PROGRESS = "progress"
    INPUT_REQUIRED = "inputRequired"

    @property
    def has_index(self) -> bool:
        """Whether it has an index of its own; the others have that of the entry before."""
        return self in (EntryKind.CHUNK, EntryKind.RESET)


# A lookup in place of the enum's constructor, which takes four times as long.
_KINDS = {kind.encode(): kind for kind in EntryKind}


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One entry. `data` is its JSON in UTF-8, serialised once: logs keep these bytes and readers get them.

    The first key of the JSON is the kind, its last value the index. Both are read from the bytes when needed: beside
    them they would take more memory than a word of text does.
    """

    data: bytes

    @classmethod
    def chunk(cls, index: Index, text: str) -> "StreamEntry":
        """A piece of the response."""
        return cls(_encode(f'{{"chunk":{_to_json(text)},"index":{index}}}'))

    @classmethod
    def reset(cls, index: Index, attempt: int) -> "StreamEntry":
        """A further attempt starts: all text before it is void."""
        return cls(_encode(f'{{"reset":true,"attempt":{attempt},"index":{index}}}'))

    @classmethod
    def progress(cls, index: Index, percent: float, note: str) -> "StreamEntry":
        """How far the agent is, in whole percent."""
        return cls(_encode(f'{{"progress":{math.floor(percent)},"note":{_to_json(note)},"index":{index}}}'))

    @classmethod
    def input_required(cls, index: Index, questions: str) -> "StreamEntry":
        """The agent asks; `questions` is a list in JSON."""
        return cls(_encode(f'{{"inputRequired":{questions},"index":{index}}}'))

    @property
    def index(self) -> Index:
        """The number of the chunk or reset; other entries have that of the one before them."""
        return int(self.data[self.data.rindex(b":") + 1 : -1])

    @property
    def kind(self) -> EntryKind:
        """Whether it is a chunk, a reset or progress."""
        return _KINDS[self.data[2 : self.data.index(b'"', 2)]]

    @property
    def size(self) -> int:
        """Roughly its bytes in memory and on the wire."""
        return len(self.data)


_to_json = json.JSONEncoder(ensure_ascii=False).encode


def _encode(text: str) -> bytes:
    # half a surrogate pair has no bytes; the call fails on it when its reply is checked
    return text.encode(errors="replace")


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
    """The input of `StreamSegment`. The segment ends by itself at `expires_at`, even if its writer is lost."""

    expires_at: datetime


def segment_workflow_id(workflow_id: str, number: int) -> str:
    """The workflow id of a stream's segment: the first is the run itself."""
    return workflow_id if number == 1 else f"{workflow_id}/stream/{number}"


class StreamLogError(Exception):
    """The log cannot be reached at the moment."""


class StreamClosedError(Exception):
    """The run has ended, or a later attempt writes its stream: this writer is fenced off."""


@dataclass(frozen=True, slots=True)
class StreamPage:
    """Entries in order; `position` is where to continue. Not `has_more`: there is nothing further at the moment."""

    entries: list[StreamEntry]
    position: LogPosition
    has_more: bool


class StreamWriter(Protocol):
    """Writes one attempt's batches into the log."""

    async def append(self, entries: Sequence[StreamEntry]) -> None:
        """Returns once the log has acknowledged them. Retried after a StreamLogError, it keeps them once.

        Raises StreamLogError, StreamClosedError.
        """
        ...

    async def finish(self) -> None:
        """Called after the last batch of a run that has its answer: releases what the log holds open for the run."""
        ...


class StreamLog(Protocol):
    """Keeps streams durably, behind the memory of the process that runs the agent."""

    def writer(self, workflow_id: str, deadline: datetime, *, is_retry: bool) -> StreamWriter:
        """A writer for one attempt of the run, which ends by the deadline. `is_retry`: others have written before."""
        ...

    def write_interval(self, *, has_local_readers: bool, age_seconds: float, writer_count: int) -> float:
        """Seconds between two writes of a stream: fewer cost less, more of them serve readers elsewhere sooner.

        `has_local_readers`: this process has readers itself; `age_seconds`: since the attempt's first entry;
        `writer_count`: how many streams the process writes.
        """
        ...

    async def read(self, workflow_id: str, position: LogPosition, *, wait: bool) -> StreamPage:
        """Entries after `position` (None: from the start), oldest first; with `wait` it may wait for the next.

        Raises StreamLogError. A cancelled read loses nothing: the same position can be read again.
        """
        ...

    async def read_now(self, workflow_id: str, position: LogPosition) -> StreamPage:
        """Like `read`, and never waits, also while the run is open. Raises StreamLogError."""
        ...

    async def last_index(self, workflow_id: str) -> Index:
        """The index of the last chunk or reset that is kept, 0 if there is none. Raises StreamLogError."""
        ...

    async def check_reachable(self) -> None:
        """Raises StreamLogError if the log is not in Temporal, and does not answer."""
        ...

    async def remove_tenant(self, tenant: str) -> int:
        """Removes the streams of a tenant's runs that are kept outside of their histories; returns their number.

        Raises StreamLogError.
        """
        ...
