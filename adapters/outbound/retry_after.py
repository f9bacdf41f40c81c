"""The `Retry-After` header (RFC 9110, section 10.2.3)."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_LONGEST = 86_400.0


def retry_after_seconds(header: str | None, *, now: datetime | None = None) -> float | None:
    """Returns seconds from now (0 to a day) from either form; None if the header has neither form."""
    header = (header or "").strip()
    try:
        if header.isascii() and header.isdigit():
            seconds = float(header)
        else:
            seconds = (parsedate_to_datetime(header) - (now or datetime.now(UTC))).total_seconds()
    except (ValueError, TypeError, OverflowError):  # TypeError: a date without a time zone.
        return None
    return min(_LONGEST, max(0.0, seconds))
