"""Moments in queries: as clients write them, and as visibility reads them."""

import re
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query
from pydantic import BeforeValidator


def rfc3339(text: object) -> object:
    """Refuses what pydantic would take for a number of seconds. Raises ValueError."""
    # pydantic takes a bare number as seconds since 1970, which nobody means here
    if not (isinstance(text, str) and re.match(r"\d{4}-\d\d-\d\d", text)):
        raise ValueError("must be a time such as 2026-11-22T10:00:00Z")
    return text


Moment = Annotated[datetime, BeforeValidator(rfc3339), Query(description="RFC 3339; UTC unless it says otherwise.")]


def in_query(moment: datetime) -> str:
    """For a condition on a time."""
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).isoformat()
