"""Moments in queries: as clients write them, and as visibility reads them."""

import re
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query
from pydantic import AfterValidator, BeforeValidator


def rfc3339(text: object) -> object:
    """Refuses what pydantic would take for a number of seconds. Raises ValueError."""
    # pydantic takes a bare number as seconds since 1970, which nobody means here
    if not (isinstance(text, str) and re.match(r"\d{4}-\d\d-\d\d", text)):
        raise ValueError("must be a time such as 2026-11-22T10:00:00Z")
    return text


def in_utc(moment: datetime) -> datetime:
    """The moment in UTC; one that names no zone is in UTC. Raises ValueError for one outside of the calendar."""
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise ValueError("must be within the years 1 to 9999 in UTC") from None


UtcMoment = Annotated[datetime, BeforeValidator(rfc3339), AfterValidator(in_utc)]
Moment = Annotated[UtcMoment, Query(description="RFC 3339; UTC unless it says otherwise.")]


def in_query(moment: datetime) -> str:
    """For a condition on a time."""
    return moment.isoformat()
