"""`Idempotency-Key`: requests with the same key and body start one run.

The run's id is derived from the key, so Temporal's uniqueness of workflow ids enforces it: over restarts, over
replicas, and for concurrent duplicates.
"""

import re
from typing import Annotated

from fastapi import Depends, Header

from sevenfold.api.http.problems import invalid_field

REPLAYED = {"Idempotency-Replayed": "true"}

# Printable ASCII. The draft RFC has the key as a quoted string; most clients send it without quotes.
_KEY = re.compile(r'"([\x21\x23-\x7e]{1,255})"|([\x21\x23-\x7e]{1,255})')


async def _idempotency_key(
    idempotency_key: Annotated[
        str | None,
        Header(
            description="1 to 255 printable characters, quoted or not. A repeated request with the same key gets the "
            "response of the first; one with another body gets 422.",
            json_schema_extra={"minLength": 1, "maxLength": 257, "pattern": "^[!-~]+$"},
        ),
    ] = None,
) -> str | None:
    return parse_idempotency_key(idempotency_key, "header:idempotency-key")


def parse_idempotency_key(header: str | None, pointer: str) -> str | None:
    """Returns the key without quotes. Raises 422 at `pointer` if it is malformed."""
    if header is None:
        return None
    match = _KEY.fullmatch(header.strip())
    if match is None:
        raise invalid_field(pointer, "must be 1 to 255 printable ASCII characters, without spaces")
    return match[1] or match[2]


IdempotencyKeyDep = Annotated[str | None, Depends(_idempotency_key)]
