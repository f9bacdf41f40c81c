"""Finds what a misspelt name may have meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def suggest(name: str, known: Iterable[str], *, cutoff: float = 0.7) -> str:
    """Returns `; did you mean …?`, or nothing if no known name is close. `cutoff`: 1 for equal names only."""
    by_lower = {one.lower(): one for one in known}
    close = get_close_matches(name.lower(), list(by_lower), n=1, cutoff=cutoff)
    return f"; did you mean {by_lower[close[0]]}?" if close else ""
