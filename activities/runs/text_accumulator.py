"""What an agent has said so far, piece by piece."""

from sevenfold.adapters.agents.replies import join_surrogates
from sevenfold.contracts.verdicts import AgentRejected

# As much as a whole answer may have (`adapters/agents/remote/upstream.py`): an agent that never ends would take all
# memory.
_MAX_BYTES = 20_000_000


class TextAccumulator:
    """Joins the pieces. A character that was cut in two, as languages do whose strings are UTF-16, is made whole: its
    first half waits for the second.
    """

    def __init__(self) -> None:
        # as bytes: a word by itself would take ten times the memory of its letters
        self._buffer = bytearray()
        self._pending_half = ""

    @property
    def has_text(self) -> bool:
        """Whether there was any text."""
        return bool(self._buffer)

    def append(self, text: str) -> str:
        """The next piece, as it can be passed on. Raises AgentRejected for half a character without the other, and
        beyond 20 MB in all.
        """
        if not self._pending_half and text.isascii():
            piece = text
        else:
            piece = self._pending_half + text
            self._pending_half = piece[-1] if "\ud800" <= piece[-1:] <= "\udbff" else ""
            piece = join_surrogates(piece.removesuffix(self._pending_half) if self._pending_half else piece)
        self._buffer += piece.encode()
        if len(self._buffer) > _MAX_BYTES:
            raise AgentRejected("The agent's text has more than 20 MB.")
        return piece

    def finish(self) -> str:
        """All of it. Raises AgentRejected."""
        return self._buffer.decode() + join_surrogates(self._pending_half)
