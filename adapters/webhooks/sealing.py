"""Seals what nobody may read in a history, a log or the Temporal UI: clients' webhook secrets."""

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32

_VERSION = "sf1"
_FORM = re.compile(rf"{_VERSION}\.([0-9a-f]{{12}})\.([A-Za-z0-9_-]+)")

# Drawn at random, so a key is good for some 2^32 seals (NIST SP 800-38D, 8.3).
_NONCE_BYTES = 12


class SealError(Exception):
    """A sealed text that does not open. The message says why and what to do, and holds nothing secret."""


class Sealer:
    """AES-256-GCM. The first of the keys (32 bytes each) seals, each opens: put a new one in front to rotate."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"a sealer needs keys of {KEY_BYTES} bytes")
        self._first = _key_id(keys[0])
        self._mac_key = keys[0]
        self._ciphers = {_key_id(key): AESGCM(key) for key in keys}

    def seal(self, text: str, *, context: str) -> str:
        """`sf1.<id of the key>.<base64url of nonce and ciphertext>`, in ASCII.

        It opens only with the same `context`, such as the id of the run it belongs to. Raises ValueError for what is
        no Unicode.
        """
        nonce = os.urandom(_NONCE_BYTES)
        encrypted = self._ciphers[self._first].encrypt(nonce, text.encode(), context.encode())
        return f"{_VERSION}.{self._first}.{_encoded(nonce + encrypted)}"

    def mac(self, data: bytes, *, purpose: str) -> bytes:
        """32 bytes that only holders of the key can make of the data (HMAC-SHA256)."""
        key = hmac.digest(self._mac_key, purpose.encode(), "sha256")
        return hmac.digest(key, data, "sha256")

    def unseal(self, sealed: str, *, context: str) -> str:
        """The text. Raises SealError."""
        form = _FORM.fullmatch(sealed)
        if form is None:
            raise SealError(f"This is no sealed secret: it does not have the form {_VERSION}.<key>.<base64url>.")
        key_id, encoded = form.groups()
        if key_id not in self._ciphers:
            raise SealError(
                f"The key in SEVENFOLD_SECRET_KEY is not the one it was sealed with, whose id is {key_id} (known: "
                f"{', '.join(self._ciphers)}). Put that one behind the present one, separated by a comma; without "
                "the variable it is in the file secret.key of the data directory."
            )
        data = _decoded(encoded)
        try:
            # what is shorter than a nonce makes a ValueError
            text = self._ciphers[key_id].decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], context.encode())
        except (InvalidTag, ValueError):
            raise SealError(
                f"The sealed secret was changed, or it was sealed for something else than {context}. Start the run "
                "again with its secret."
            ) from None
        return text.decode()


def _key_id(key: bytes) -> str:
    # Tells nothing of a random key, and the prefix keeps it apart from every other hash of it.
    return hashlib.sha256(b"sevenfold key id\0" + key).hexdigest()[:12]


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decoded(text: str) -> bytes:
    """The bytes; none for what has a length that no base64 has, or bits to spare at its end."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""
    return data if _encoded(data) == text else b""
