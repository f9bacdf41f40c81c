"""Batches as an entry of a Redis Stream holds them: clear JSON lines, or encrypted with the codec keys."""

from sevenfold.adapters.encryption.key_ring import DecryptionError, KeyRing

# The first byte of an encrypted batch; a clear one begins with a brace.
_ENCRYPTED = 1


class BatchCipher:
    """Encrypts a stream's batches, if the ring has keys. A batch decrypts only in its own stream."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys
        key_id = (keys.first_id or "").encode()
        self._header = bytes((_ENCRYPTED, len(key_id))) + key_id

    def encrypt(self, stream: str, batch: bytes) -> bytes:
        """Returns the entry's value: a header with the key's id, nonce and ciphertext."""
        return self._header + self._keys.encrypt(batch, context=stream.encode()) if self._keys else batch

    def decrypt(self, stream: str, value: bytes) -> bytes:
        """Returns the batch. Raises DecryptionError."""
        if not value or value[0] != _ENCRYPTED:
            return value
        end = 2 + value[1] if len(value) > 1 else 0
        if len(value) <= end:
            raise DecryptionError("An entry of a stream in Redis is incomplete.")
        return self._keys.decrypt(value[2:end].decode("utf-8", "replace"), value[end:], context=stream.encode())
