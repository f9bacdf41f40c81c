"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """Returns a table that ends with a line break."""
    lines = [f"| {' | '.join(row)} |\n" for row in rows]
    return f"| {' | '.join(head)} |\n{'|---' * len(head)}|\n{''.join(lines)}"
