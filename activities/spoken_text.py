"""What an agent has said so far, piece by piece."""

from contracts.verdicts import AgentRejected

# So many pieces at most are kept one by one: a word by itself takes ten times the memory of its letters.
_SINGLE = 64


class SpokenText:
    """Joins the pieces. A character that was cut in two, as languages do whose strings are UTF-16, is made whole: its
    first half waits for the second.
    """

    def __init__(self) -> None:
        self._joined: list[str] = []
        self._pieces: list[str] = []
        self._half = ""

    @property
    def anything(self) -> bool:
        """Whether there was any text."""
        return bool(self._pieces or self._joined)

    def hear(self, text: str) -> str:
        """The next piece, as it can be passed on. Raises AgentRejected for half a character without the other."""
        if not self._half and text.isascii():
            piece = text
        else:
            piece = self._half + text
            self._half = piece[-1] if "\ud800" <= piece[-1:] <= "\udbff" else ""
            piece = _whole_characters(piece.removesuffix(self._half) if self._half else piece)
        if piece:
            self._pieces.append(piece)
            if len(self._pieces) == _SINGLE:
                self._joined.append("".join(self._pieces))
                self._pieces.clear()
        return piece

    def end(self) -> str:
        """All of it. Raises AgentRejected."""
        return "".join([*self._joined, *self._pieces]) + _whole_characters(self._half)


def _whole_characters(text: str) -> str:
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise AgentRejected("The agent's text is not valid Unicode.") from None
