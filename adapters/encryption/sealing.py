"""Seals webhook secrets, so that histories, logs and the Temporal UI do not expose them."""

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

# Random nonces limit a key to about 2^32 seals (NIST SP 800-38D, 8.3).
_NONCE_BYTES = 12


class SealError(Exception):
    """A sealed text cannot be opened. The message states the reason and what to do, and contains no secret."""


class Sealer:
    """AES-256-GCM. The first key (32 bytes each) seals, every key opens: to rotate, put a new one in front."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"a sealer needs keys of {KEY_BYTES} bytes")
        self._first = _key_id(keys[0])
        self._mac_key = keys[0]
        self._ciphers = {_key_id(key): AESGCM(key) for key in keys}

    def seal(self, text: str, *, context: str) -> str:
        """Returns `sf1.<key id>.<base64url of nonce and ciphertext>`, in ASCII.

        It opens only with the same `context`, such as the id of its run. Raises ValueError for text that is not valid
        Unicode.
        """
        nonce = os.urandom(_NONCE_BYTES)
        encrypted = self._ciphers[self._first].encrypt(nonce, text.encode(), context.encode())
        return f"{_VERSION}.{self._first}.{_encoded(nonce + encrypted)}"

    def mac(self, data: bytes, *, purpose: str) -> bytes:
        """Returns an HMAC-SHA256 of the data, 32 bytes, with a key derived for `purpose`."""
        key = hmac.digest(self._mac_key, purpose.encode(), "sha256")
        return hmac.digest(key, data, "sha256")

    def unseal(self, sealed: str, *, context: str) -> str:
        """Returns the text. Raises SealError."""
        form = _FORM.fullmatch(sealed)
        if form is None:
            raise SealError(f"This is not a sealed secret: it does not have the form {_VERSION}.<key>.<base64url>.")
        key_id, encoded = form.groups()
        if key_id not in self._ciphers:
            raise SealError(
                f"The secret was sealed with the key {key_id}, which SEVENFOLD_SECRET_KEY does not contain (known: "
                f"{', '.join(self._ciphers)}). Append that key after a comma; without "
                "the variable, it is in the file secret.key of the data directory."
            )
        data = _decoded(encoded)
        try:
            # Data shorter than a nonce raises ValueError.
            text = self._ciphers[key_id].decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], context.encode())
        except (InvalidTag, ValueError):
            raise SealError(
                f"The sealed secret was changed, or it was not sealed for {context}. Start the run "
                "again with its secret."
            ) from None
        return text.decode()


def _key_id(key: bytes) -> str:
    # Reveals nothing about a random key; the prefix separates it from other hashes of the key.
    return hashlib.sha256(b"sevenfold key id\0" + key).hexdigest()[:12]


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decoded(text: str) -> bytes:
    """Decodes base64url; returns no bytes for invalid lengths and for non-zero trailing bits."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""
    return data if _encoded(data) == text else b""
