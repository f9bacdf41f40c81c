"""Temporal's payload codec: encrypts every payload before it leaves the process.

The form is that of Temporal's own encryption samples, so that a worker in another language can use the same keys:
`encoding: binary/encrypted` and `encryption-key-id` in the metadata; nonce (12 bytes) and ciphertext as data. The
plaintext is the whole payload, serialized.

The converter runs before the codec, and the store of large payloads after it: what is stored is encrypted too.
"""

from collections.abc import Sequence
from typing import Final, Self

from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    PayloadCodec,
    SerializationContext,
    WithSerializationContext,
    WorkflowSerializationContext,
)

from sevenfold.adapters.encryption.key_ring import DecryptionError, KeyRing
from sevenfold.adapters.payloads.directory import THRESHOLD_BYTES
from sevenfold.contracts.identity import is_clear_child

ENCRYPTED: Final = b"binary/encrypted"
KEY_ID: Final = "encryption-key-id"

# A null has no content, and Temporal removes a memo only if its new value is the plain null.
_NULL = b"binary/null"

# What may be stored outside the history is named by its digest there, and is stored again by every heartbeat and
# retry: it is encrypted repeatably. The margin is for what encryption adds.
_REPEATABLE_BYTES = THRESHOLD_BYTES - 1024


def find_key_id(payload: Payload) -> str | None:
    """Returns the id of the key that encrypted the payload; None if it is clear."""
    if payload.metadata.get("encoding") != ENCRYPTED:
        return None
    return payload.metadata.get(KEY_ID, b"").decode("utf-8", "replace")


class EncryptionCodec(PayloadCodec, WithSerializationContext):
    """Encrypts with the ring's first key, and decrypts with all of them; clear payloads pass. With an empty ring it
    encrypts nothing, and reports encrypted payloads by DecryptionError.
    """

    def __init__(self, keys: KeyRing, *, clear: bool = False) -> None:
        self._keys = keys
        self._encrypts = bool(keys) and not clear

    def with_context(self, context: SerializationContext) -> Self:
        """Returns the codec for payloads of the context: those to a workflow agent without our keys stay clear."""
        if (
            self._encrypts
            and isinstance(context, WorkflowSerializationContext)
            and is_clear_child(context.workflow_id)
        ):
            return type(self)(self._keys, clear=True)
        return self

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypts the payloads."""
        return [self._encrypt(payload) for payload in payloads] if self._encrypts else list(payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypts the encrypted ones of the payloads. Raises DecryptionError."""
        return [self._decrypt(payload) for payload in payloads]

    def _encrypt(self, payload: Payload) -> Payload:
        encoding = payload.metadata.get("encoding")
        if encoding in (_NULL, ENCRYPTED):
            return payload
        plain = payload.SerializeToString(deterministic=True)
        data = self._keys.encrypt(plain, repeatable=len(plain) > _REPEATABLE_BYTES)
        return Payload(metadata={"encoding": ENCRYPTED, KEY_ID: (self._keys.first_id or "").encode()}, data=data)

    def _decrypt(self, payload: Payload) -> Payload:
        key_id = find_key_id(payload)
        if key_id is None:
            return payload
        plain = self._keys.decrypt(key_id, payload.data)
        try:
            return Payload.FromString(plain)
        except DecodeError:
            raise DecryptionError("What was encrypted is not a payload of Temporal.") from None
