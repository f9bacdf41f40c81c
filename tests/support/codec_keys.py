"""Codec keys of tests."""

import base64
import os

from pydantic import SecretStr

from sevenfold.adapters.encryption.key_ring import KeyRing


def new_key(key_id: str) -> str:
    """A key as SEVENFOLD_CODEC_KEYS has it."""
    return f"{key_id}:{base64.b64encode(os.urandom(32)).decode()}"


def key_setting(*keys: str) -> SecretStr:
    """The variable's value."""
    return SecretStr(",".join(keys))


def ring_of(*keys: str) -> KeyRing:
    """The ring of these keys."""
    pairs = (key.split(":") for key in keys)
    return KeyRing({key_id: base64.b64decode(encoded) for key_id, encoded in pairs})
