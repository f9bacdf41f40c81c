"""The resets of a stream: what was sent before one is void."""

from sevenfold.adapters.streams.reader import read_logged_entries_after
from sevenfold.contracts.streams import EntryKind, Index, StreamLog


async def find_resets(log: StreamLog, workflow_id: str) -> list[Index] | None:
    """Returns the indexes of a stream's resets in the log; None if the log has no entry."""
    resets: list[Index] = []
    is_logged = False
    async for entries in read_logged_entries_after(log, workflow_id, 0, None):
        is_logged = is_logged or bool(entries)
        resets += [one.index for one in entries if one.kind is EntryKind.RESET]
    return resets if is_logged else None
