"""`Idempotency-Key`: the same key and body start one run, whatever the network does.

The run's id is derived from the key, so Temporal's own uniqueness is what enforces it: over restarts, over
replicas, and for a hundred duplicates at once.
"""

import hashlib
import json
import re
from typing import Annotated

from fastapi import Depends, Header

from sevenfold.api.http.problems import invalid_field
from sevenfold.contracts.payload import RequestBody

REPLAYED = {"Idempotency-Replayed": "true"}

# Printable ASCII, as a header may hold it; the draft RFC writes the key as a quoted string, most people bare.
_KEY = re.compile(r'"([\x21\x23-\x7e]{1,255})"|([\x21\x23-\x7e]{1,255})')


async def _idempotency_key(
    idempotency_key: Annotated[
        str | None,
        Header(
            description="1 to 255 printable characters, quoted or bare. A request sent again with the key of an "
            "earlier one gets that one's answer; with another body it is refused.",
            json_schema_extra={"minLength": 1, "maxLength": 257, "pattern": "^[!-~]+$"},
        ),
    ] = None,
) -> str | None:
    return parse_idempotency_key(idempotency_key, "header:idempotency-key")


def parse_idempotency_key(header: str | None, pointer: str) -> str | None:
    """The key without its quotes. Raises the problem of one that is none."""
    if header is None:
        return None
    match = _KEY.fullmatch(header.strip())
    if match is None:
        raise invalid_field(pointer, "must be 1 to 255 printable ASCII characters, without spaces")
    return match[1] or match[2]


IdempotencyKeyDep = Annotated[str | None, Depends(_idempotency_key)]


def fingerprint(body: RequestBody) -> str:
    """What a body says, whatever its white space and the order of its keys. Its secrets are no part of it."""
    canonical = json.dumps(body.model_dump(mode="json", exclude_unset=True), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
