"""The `Retry-After` header (RFC 9110, section 10.2.3)."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_LONGEST = 86_400.0


def retry_after_seconds(header: str | None, *, now: datetime | None = None) -> float | None:
    """Seconds from now (at least 0, at most a day), out of either form; None for what is neither."""
    header = (header or "").strip()
    try:
        if header.isascii() and header.isdigit():
            seconds = float(header)
        else:
            seconds = (parsedate_to_datetime(header) - (now or datetime.now(UTC))).total_seconds()
    except (ValueError, TypeError, OverflowError):  # TypeError: a date without a zone
        return None
    return min(_LONGEST, max(0.0, seconds))
