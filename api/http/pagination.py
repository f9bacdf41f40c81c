"""Cursors: Temporal's page tokens, bound to the list that issued them."""

import base64
import binascii
import hashlib
import hmac

from sevenfold.adapters.encryption.sealing import Sealer
from sevenfold.api.http.problems import ProblemError, invalid_field

_MAC_BYTES = 12


class Cursors:
    """Writes and reads cursors. With a sealer they carry a MAC, so that nobody can forge a token that Temporal takes
    seconds to refuse. Without one, a checksum still refuses cursors that are truncated or belong to another list.
    """

    def __init__(self, sealer: Sealer | None) -> None:
        self._sealer = sealer

    def write(self, token: bytes | None, query: str) -> str | None:
        """Returns the next page's cursor, or None on the last page."""
        if not token:
            return None
        return base64.urlsafe_b64encode(self._mac(token, query) + token).decode().rstrip("=")

    def read(self, cursor: str | None, query: str) -> bytes | None:
        """Returns the page token in a cursor. Raises 422 if the cursor is malformed or belongs to another list."""
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
    """Returns the 422 of a cursor that this list did not issue."""
    return invalid_field(
        "query:cursor", "is not a cursor of this list with these filters. Start again without a cursor."
    )
