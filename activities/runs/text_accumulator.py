"""Joins the text that an agent streams."""

import hashlib

from sevenfold.adapters.agents.replies import join_surrogates
from sevenfold.contracts.agents.errors import AgentRejected

# The limit of a whole answer (`adapters/agents/remote/upstream.py`): an agent that never stops would fill the memory.
_MAX_BYTES = 20_000_000


class TextAccumulator:
    """Joins pieces of text. A character that is split into surrogates, as in languages with UTF-16 strings, is
    joined: its first half is held back until the second arrives.
    """

    def __init__(self) -> None:
        # Bytes, because a list of one-word strings takes ten times the memory of its characters.
        self._buffer = bytearray()
        self._pending_half = ""
        self._digest = hashlib.blake2b(digest_size=16)
        self._digested = 0

    @property
    def has_text(self) -> bool:
        """Whether any text was appended."""
        return bool(self._buffer)

    @property
    def size(self) -> int:
        """Bytes of the text so far."""
        return len(self._buffer)

    def digest(self) -> str:
        """Returns a hash of the text so far."""
        self._digest.update(memoryview(self._buffer)[self._digested :])
        self._digested = len(self._buffer)
        return self._digest.hexdigest()

    def append(self, text: str) -> str:
        """Appends a piece and returns the text to publish.

        Raises AgentRejected for half a character without its other half, and above 20 MB in total.
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
        """Returns the whole text. Raises AgentRejected."""
        return self._buffer.decode() + join_surrogates(self._pending_half)
