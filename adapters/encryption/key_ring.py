"""The codec keys of a gateway: AES-256-GCM, the first key encrypts, every key decrypts."""

import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32

_VARIABLE = "SEVENFOLD_CODEC_KEYS"

# Random nonces limit a key to about 2^32 encryptions (NIST SP 800-38D, 8.3).
_NONCE_BYTES = 12


class DecryptionError(Exception):
    """Stored data cannot be decrypted with the keys of this process; they can be read once the key is back. The
    message names the key's id and what to do, and contains no key and no content.
    """


@dataclass(frozen=True)
class _Key:
    cipher: AESGCM
    nonce_secret: bytes


class KeyRing:
    """Keys by id, the first one first. An empty ring encrypts nothing."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if any(len(key) != KEY_BYTES for key in keys.values()):
            raise ValueError(f"codec keys have {KEY_BYTES} bytes")
        self._keys = {
            key_id: _Key(AESGCM(key), hmac.digest(key, b"sevenfold nonce", "sha256")) for key_id, key in keys.items()
        }
        self.first_id = next(iter(keys), None)

    def __bool__(self) -> bool:
        return self.first_id is not None

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._keys

    def encrypt(self, data: bytes, *, context: bytes | None = None, repeatable: bool = False) -> bytes:
        """Returns nonce and ciphertext, encrypted with the first key; they decrypt only with the same `context`.

        `repeatable`: the same data give the same bytes, so that a store that names files by their content keeps one
        file. Whoever reads the store then sees which files are equal.
        """
        assert self.first_id is not None, "an empty ring encrypts nothing"  # noqa: S101
        key = self._keys[self.first_id]
        # The nonce of repeatable encryption depends on all of the data, so that no nonce meets two contents.
        nonce = (
            hmac.digest(key.nonce_secret, data, "sha256")[:_NONCE_BYTES] if repeatable else os.urandom(_NONCE_BYTES)
        )
        return nonce + key.cipher.encrypt(nonce, data, context)

    def decrypt(self, key_id: str, data: bytes, *, context: bytes | None = None) -> bytes:
        """Returns the data. Raises DecryptionError."""
        key = self._keys.get(key_id)
        if key is None:
            known = ", ".join(self._keys) or "none"
            raise DecryptionError(
                f"This was encrypted with the codec key {key_id[:100]}, which {_VARIABLE} of this process does not "
                f"contain (it has: {known}). Append the key; nothing is lost."
            )
        try:
            return key.cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], context)
        except (InvalidTag, ValueError):  # ValueError: shorter than a nonce
            raise DecryptionError(
                f"The codec key {key_id[:100]} in {_VARIABLE} is not the one that encrypted this, or the data were "
                "changed. Restore the key of that id; nothing is lost."
            ) from None
