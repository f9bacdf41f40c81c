"""Moments in queries: as clients write them, and as visibility reads them."""

import re
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query
from pydantic import AfterValidator, BeforeValidator


def check_rfc3339(text: object) -> object:
    """Refuses what pydantic would take for a number of seconds. Raises ValueError."""
    # pydantic takes a bare number as seconds since 1970, which nobody means here
    if not (isinstance(text, str) and re.match(r"\d{4}-\d\d-\d\d", text)):
        raise ValueError("must be a time such as 2026-11-22T10:00:00Z")
    return text


def to_utc(time: datetime) -> datetime:
    """The moment in UTC; one that names no zone is in UTC. Raises ValueError for one outside of the calendar."""
    try:
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise ValueError("must be within the years 1 to 9999 in UTC") from None


UtcTime = Annotated[datetime, BeforeValidator(check_rfc3339), AfterValidator(to_utc)]
TimeParam = Annotated[UtcTime, Query(description="RFC 3339; UTC unless it says otherwise.")]


def to_query_time(time: datetime) -> str:
    """For a condition on a time."""
    return time.isoformat()
