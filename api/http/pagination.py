"""Cursors: Temporal's page tokens, tied to the list that gave them out."""

import base64
import binascii
import hashlib
import hmac

from sevenfold.adapters.webhooks.sealing import Sealer
from sevenfold.api.http.problems import ProblemError, invalid_field

_MAC_BYTES = 12


class Cursors:
    """Writes and reads cursors. With a key nobody can forge one, which Temporal would take seconds to refuse. Without
    a key a checksum still refuses those that are cut, mixed up or of another list.
    """

    def __init__(self, sealer: Sealer | None) -> None:
        self._sealer = sealer

    def write(self, token: bytes | None, query: str) -> str | None:
        """The cursor for the next page, or None when there is none."""
        if not token:
            return None
        return base64.urlsafe_b64encode(self._mac(token, query) + token).decode().rstrip("=")

    def read(self, cursor: str | None, query: str) -> bytes | None:
        """The page token in a cursor. Raises the problem of a cursor that is broken or of another list."""
        if cursor is None:
            return None
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        mac, token = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not token or not hmac.compare_digest(mac, self._mac(token, query)):
            raise invalid_cursor()
        return token

    def _mac(self, token: bytes, query: str) -> bytes:
        data = query.encode() + b"\x00" + token
        whole = hashlib.sha256(data).digest() if self._sealer is None else self._sealer.mac(data, purpose="cursor")
        return whole[:_MAC_BYTES]


def invalid_cursor() -> ProblemError:
    """The problem of a cursor that is none of this list's."""
    return invalid_field("query:cursor", "is not a cursor of this list with these filters; start again without it")
