"""Times in query parameters: as clients write them, and as visibility reads them."""

import re
from datetime import UTC, date, datetime
from typing import Annotated

from fastapi import Query
from pydantic import AfterValidator, BeforeValidator


def check_rfc3339(text: object) -> object:
    """Returns the text if it starts as a date. Raises ValueError."""
    # pydantic takes a bare number as seconds since 1970, which is a mistake here
    if not (isinstance(text, str) and re.match(r"\d{4}-\d\d-\d\d", text)):
        raise ValueError("must be a time such as 2026-11-22T10:00:00Z")
    return text


def to_utc(time: datetime) -> datetime:
    """Converts a time to UTC; without an offset it is UTC. Raises ValueError outside of the years 1 to 9999."""
    try:
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise ValueError("must be within the years 1 to 9999 in UTC") from None


UtcTime = Annotated[datetime, BeforeValidator(check_rfc3339), AfterValidator(to_utc)]
TimeParam = Annotated[UtcTime, Query(description="RFC 3339; UTC if it has no offset.")]


def check_day(text: object) -> object:
    """Returns the text if it has the form of a day. Raises ValueError."""
    if not (isinstance(text, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", text)):
        raise ValueError("must be a day such as 2026-11-22")
    return text


Day = Annotated[date, BeforeValidator(check_day)]


def to_query_time(time: datetime) -> str:
    """Formats a time for a condition of a visibility query."""
    return time.isoformat()
