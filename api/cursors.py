"""Cursors: Temporal's page tokens, tied to the list that gave them out."""

import base64
import binascii
import hashlib

from api.problems import invalid

_MARK_LENGTH = 12


def _mark(token: bytes, query: str) -> bytes:
    # Not a secret: it keeps a cut, mixed-up or foreign cursor from Temporal, which answers those as its own fault.
    return hashlib.sha256(query.encode() + b"\x00" + token).digest()[:_MARK_LENGTH]


def write_cursor(token: bytes | None, query: str) -> str | None:
    """The cursor for the next page, or None when there is none."""
    if not token:
        return None
    return base64.urlsafe_b64encode(_mark(token, query) + token).decode().rstrip("=")


def read_cursor(cursor: str | None, query: str) -> bytes | None:
    """The page token in a cursor. Raises the problem of a cursor that is broken or of another list."""
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    mark, token = raw[:_MARK_LENGTH], raw[_MARK_LENGTH:]
    if not token or mark != _mark(token, query):
        raise invalid("query:cursor", "is not a cursor of this list with these filters; start again without it")
    return token
