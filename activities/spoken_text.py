"""What an agent has said so far, piece by piece."""

from adapters.agents.replies import whole_characters
from contracts.verdicts import AgentRejected

# As much as a whole answer may have (`adapters/agents/upstream.py`): an agent that never ends would take all memory.
_MOST_BYTES = 20_000_000


class SpokenText:
    """Joins the pieces. A character that was cut in two, as languages do whose strings are UTF-16, is made whole: its
    first half waits for the second.
    """

    def __init__(self) -> None:
        # as bytes: a word by itself would take ten times the memory of its letters
        self._joined = bytearray()
        self._half = ""

    @property
    def anything(self) -> bool:
        """Whether there was any text."""
        return bool(self._joined)

    def hear(self, text: str) -> str:
        """The next piece, as it can be passed on. Raises AgentRejected for half a character without the other, and
        beyond 20 MB in all.
        """
        if not self._half and text.isascii():
            piece = text
        else:
            piece = self._half + text
            self._half = piece[-1] if "\ud800" <= piece[-1:] <= "\udbff" else ""
            piece = whole_characters(piece.removesuffix(self._half) if self._half else piece)
        self._joined += piece.encode()
        if len(self._joined) > _MOST_BYTES:
            raise AgentRejected("The agent's text has more than 20 MB.")
        return piece

    def end(self) -> str:
        """All of it. Raises AgentRejected."""
        return self._joined.decode() + whole_characters(self._half)
