"""API keys: `sf_<id>_<secret><checksum>`.

Letters, digits and underscores only, so that a double click selects all of it. The id is 12 letters and digits, the
secret 32 random bytes in 43 digits of base 62. The checksum is the CRC-32 of what precedes it, in 6 digits: it finds
typos without a look-up, and lets secret scanners recognise a key.
"""

import hashlib
import re
import secrets
import string
import zlib
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

SECRET_BYTES = 32

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}
_ID_ALPHABET = string.digits + string.ascii_lowercase
_ID_LENGTH, _SECRET_LENGTH, _CHECKSUM_LENGTH = 12, 43, 6

_KEY = re.compile(
    rf"(sf_([0-9a-z]{{{_ID_LENGTH}}})_([0-9A-Za-z]{{{_SECRET_LENGTH}}}))([0-9A-Za-z]{{{_CHECKSUM_LENGTH}}})"
)

KeyId = Annotated[str, Field(pattern=rf"^[0-9a-z]{{{_ID_LENGTH}}}$")]

# The SHA-256 of the 32 random bytes. Their entropy needs neither a salt nor a slow hash nor a server's secret.
KeyHash = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


@dataclass(frozen=True)
class PresentedKey:
    """A well-formed key as a client sent it: its id, and the hash of its secret."""

    key_id: str
    hash: str


@dataclass(frozen=True)
class NewKey:
    """A new key. `text` is shown once; only id and hash are stored."""

    key_id: str
    text: str
    hash: str


def generate_key() -> NewKey:
    """Returns a new random key."""
    key_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))
    secret = secrets.token_bytes(SECRET_BYTES)
    body = f"sf_{key_id}_{_encode(int.from_bytes(secret), _SECRET_LENGTH)}"
    return NewKey(key_id, body + _checksum(body), _hash(secret))


def parse_key(text: str) -> PresentedKey | None:
    """Returns the id and hash of a key; None if it is malformed or its checksum is wrong."""
    found = _KEY.fullmatch(text)
    if found is None or _checksum(found[1]) != found[4]:
        return None
    number = 0
    for digit in found[3]:
        number = number * 62 + _VALUES[digit]
    if number.bit_length() > 8 * SECRET_BYTES:
        return None
    return PresentedKey(found[2], _hash(number.to_bytes(SECRET_BYTES)))


def _hash(secret: bytes) -> str:
    return f"sha256:{hashlib.sha256(secret).hexdigest()}"


def _checksum(body: str) -> str:
    return _encode(zlib.crc32(body.encode()), _CHECKSUM_LENGTH)


def _encode(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
