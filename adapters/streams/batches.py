"""What goes into the log at once."""

from sevenfold.contracts.streams import EntryKind, StreamEntry

# A batch that is this large is written without waiting for its time, and none is much larger.
FULL_BATCH = 200
FULL_BATCH_BYTES = 200_000


def first_batch(entries: list[StreamEntry]) -> list[StreamEntry]:
    """As many of them as are written at once, one at least."""
    size = 0
    for count, entry in enumerate(entries[:FULL_BATCH]):
        size += entry.size
        if size > FULL_BATCH_BYTES and count:
            return entries[:count]
    return entries[:FULL_BATCH]


def latest_progress_only(batch: list[StreamEntry]) -> list[StreamEntry]:
    """One that was overtaken within the batch is news to nobody who reads it there."""
    return [
        entry
        for entry, following in zip(batch, [*batch[1:], None], strict=True)
        if entry.kind is not EntryKind.PROGRESS or following is None or following.kind is not EntryKind.PROGRESS
    ]
