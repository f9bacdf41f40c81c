"""The resets of a stream: what was sent before one is void."""

from sevenfold.adapters.streams.batch_writer import retry_while_unreachable
from sevenfold.contracts.runs.streams import EntryKind, Index, LogPosition, StreamLog


async def find_resets(log: StreamLog, workflow_id: str) -> list[Index] | None:
    """Returns the indexes of a stream's resets in the log as it is now; None if the log has no entry."""
    resets: list[Index] = []
    is_logged = False
    position: LogPosition = None
    while True:
        page = await retry_while_unreachable(lambda: log.read_now(workflow_id, position))  # noqa: B023  (awaited)
        is_logged = is_logged or bool(page.entries)
        resets += [one.index for one in page.entries if one.kind is EntryKind.RESET]
        position = page.position
        if not page.has_more:
            return resets if is_logged else None
