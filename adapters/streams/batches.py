"""Which entries form one write to the log."""

from sevenfold.contracts.runs.streams import EntryKind, StreamEntry

# A batch of this size is written without a pause, and none is much larger.
FULL_BATCH = 200
FULL_BATCH_BYTES = 200_000


def first_batch(entries: list[StreamEntry]) -> list[StreamEntry]:
    """As many of the entries as fit into one write, at least one."""
    size = 0
    for count, entry in enumerate(entries[:FULL_BATCH]):
        size += entry.size
        if size > FULL_BATCH_BYTES and count:
            return entries[:count]
    return entries[:FULL_BATCH]


def latest_progress_only(batch: list[StreamEntry]) -> list[StreamEntry]:
    """Of consecutive progress entries only the last: nobody reads the ones before from the log."""
    if len(batch) == 1:
        return batch
    return [
        entry
        for entry, following in zip(batch, [*batch[1:], None], strict=True)
        if entry.kind is not EntryKind.PROGRESS or following is None or following.kind is not EntryKind.PROGRESS
    ]
