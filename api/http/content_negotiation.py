"""Content negotiation by the `Accept` header (RFC 9110, 12.5.1)."""

from collections.abc import Sequence

from sevenfold.api.http.problems import ProblemError, ProblemType


def negotiate(header: str | None, offered: Sequence[str]) -> str:
    """Returns the offered media type that the client prefers; the first one if it has no preference.

    Raises 406 if the client accepts none of them.
    """
    if not header:
        return offered[0]
    ranges = [_parse_range(part) for part in header.split(",")]
    best = max(offered, key=lambda media_type: _quality(media_type, ranges))
    if _quality(best, ranges) == 0:
        raise ProblemError(
            ProblemType.NOT_ACCEPTABLE,
            f"Accept names none of the media types here. Accept one of: {', '.join(offered)}.",
        )
    return best


def _parse_range(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = next((value[2:] for value in parameters if value.startswith("q=")), "1")
    try:
        return name, float(quality)
    except ValueError:
        return name, 0.0


def _quality(media_type: str, ranges: list[tuple[str, float]]) -> float:
    """Returns the quality of the most specific range that includes the type; 0 if none does."""
    qualities = dict(ranges)
    for name in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
        if name in qualities:
            return qualities[name]
    return 0.0
